"""Processes that a measurement starts, with their files, and ends. For the scripts of this folder."""

import os, shutil, signal, socket, subprocess, sys, tempfile, time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port, process, seconds=15):
    end = time.time() + seconds
    while time.time() < end:
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode} before it listened on {port}")
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


class Processes:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="homing-bench-")
        self.running = []

    def start(self, argv, env=None, port=None):
        log = open(f"{self.dir}/log", "ab")
        process = subprocess.Popen(argv, env={**os.environ, **(env or {})}, stdout=log, stderr=log)
        self.running.append(process)
        if port:
            wait_for(port, process)
        return process

    def file(self, name, text, mode=0o644):
        path = f"{self.dir}/{name}"
        with open(path, "w") as out:
            out.write(text)
        os.chmod(path, mode)
        return path

    def stop(self):
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(self.dir, ignore_errors=True)
