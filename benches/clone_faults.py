#!/usr/bin/env python3
"""What the app's clients feel of a clone member that misbehaves: p99 of homing with a clone beside homing without
one, in turn, within one run, for each fault. The aim is a ratio of 1.1 at most, and no request that fails.

Members are scripted here; load is wrk's, with a body, so that copies have something to be held up by. The ratio of
p99s is noisy on a busy machine: look at several rounds, and at `none`, a member that answers, for the noise itself.

    cargo build --release && benches/clone_faults.py
    benches/clone_faults.py --fault deaf --body 65536 --rounds 5
"""
import argparse, re, shutil, socket, statistics, struct, subprocess, sys, threading, time

from processes import Processes, free_port

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


def answers(connection):
    """Answers each read: reading is as coarse as homing's pipelines, and a member may always answer early."""
    while connection.recv(1 << 16):
        connection.sendall(ANSWER)


def deaf(connection):
    threading.Event().wait()


def mute(connection):
    while connection.recv(1 << 16):
        pass


def byte_a_second(connection):
    while connection.recv(1):
        time.sleep(1)


def endless(connection):
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"x" * 1024)
        time.sleep(0.01)


def garbage(connection):
    connection.recv(1 << 16)
    connection.sendall(b"220 mail.example ESMTP\r\n")


def resets(connection):
    connection.recv(1 << 10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def closes(connection):
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")


FAULTS = {"none": answers, "deaf": deaf, "mute": mute, "byte-a-second": byte_a_second, "endless": endless,
          "garbage": garbage, "resets": resets, "closes": closes, "gone": None}


def member(fault):
    """A clone member's port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    if FAULTS[fault] is None:
        listener.close()
        return port

    def serve(connection):
        try:
            FAULTS[fault](connection)
        except OSError:
            pass
        connection.close()

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return port


class Bench(Processes):
    def __init__(self, args):
        super().__init__()
        self.args = args
        self.origin = free_port()
        conf = self.file("origin.conf", f"""daemon off; worker_processes 1; pid {self.dir}/origin.pid;
error_log stderr error; events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {self.dir}/bodies;
  client_body_buffer_size 1m; client_max_body_size 0;
  server {{ listen 127.0.0.1:{self.origin}; location / {{ return 200 "{'x' * 128}"; }} }} }}""")
        self.start(["nginx", "-c", conf], port=self.origin)
        self.script = self.file("post.lua", f"""wrk.method = "POST"
wrk.body = string.rep("x", {args.body})
local session = 0
request = function()
  session = session + 1
  return wrk.format(nil, nil, {{ ["Cookie"] = "SID=" .. session % 1000 }})
end""")

    def homing(self, clone):
        port = free_port()
        section = f"""
    clone: {{ pool_ref: clones, tokens: ["cookie:SID"] }}""" if clone else ""
        conf = self.file(f"homing{port}.yaml", f"""threads: {self.args.threads}
admin: {{ listen: none }}
pools:
  - {{ name: app, servers: [{{ ip: 127.0.0.1, port: {self.origin} }}] }}
  - {{ name: clones, servers: [{{ ip: 127.0.0.1, port: {clone or 9} }}] }}
virtual_services:
  - name: bench
    services: [{{ address: 127.0.0.1, port: {port} }}]
    pool_ref: app{section}
""")
        return self.start([self.args.homing, "run", "--config", conf], {"HOMING_LOG": "error"}, port), port

    def load(self, port, seconds):
        """p99 in ms, and requests that failed."""
        out = subprocess.run(
            ["wrk", "-t1", f"-c{self.args.connections}", f"-d{seconds}s", "--latency", "-s", self.script,
             f"http://127.0.0.1:{port}/"], capture_output=True, text=True).stdout
        value, unit = re.search(r"99%\s+([\d.]+)([mu]?s)", out).groups()
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
        failed = sum(map(int, errors.groups())) if errors else 0
        return float(value) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit], failed + (int(bad.group(1)) if bad else 0)

    def compare(self, fault):
        without, plain = self.homing(None)
        with_clone, cloned = self.homing(member(fault))
        p99, failed = {plain: [], cloned: []}, 0
        for round in range(self.args.rounds + 1):
            for port in (plain, cloned):
                took, bad = self.load(port, self.args.seconds if round else 1)
                failed += bad
                if round:
                    p99[port].append(took)
        before, after = statistics.median(p99[plain]), statistics.median(p99[cloned])
        print(f"{fault:<14}{before:>12.2f}{after:>12.2f}{after / before:>8.2f}{failed:>8}", flush=True)
        for process in (without, with_clone):
            process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--homing", default="target/release/homing")
    parser.add_argument("--fault", choices=list(FAULTS), action="append", help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--body", type=int, default=2048, help="bytes of each request's body")
    args = parser.parse_args()
    for tool in ("wrk", "nginx"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: it makes the load or the origin; apt-get install {tool}")
    bench = Bench(args)
    try:
        print(f"{'fault':<14}{'p99 ms':>12}{'with clone':>12}{'ratio':>8}{'failed':>8}")
        for fault in args.fault or FAULTS:
            bench.compare(fault)
    finally:
        bench.stop()


main()
