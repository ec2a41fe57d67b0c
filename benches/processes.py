"""Processes that a measurement starts, with their files, and ends, and the two sites of a federation. For the scripts of
this folder."""

import os, re, shutil, signal, socket, ssl, subprocess, sys, tempfile, time

TICK = os.sysconf("SC_CLK_TCK")
# What the uuids of site_A's and site_B's cluster and virtual service end with.
A, B = ("00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b")


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


def family(pid):
    """The process and its descendants."""
    pids = [pid]
    for p in pids:
        try:
            for task in os.listdir(f"/proc/{p}/task"):
                pids += [int(c) for c in open(f"/proc/{p}/task/{task}/children").read().split()]
        except OSError:
            pass
    return pids


def cpu_seconds(pid):
    total = 0
    for p in family(pid):
        fields = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def rss_kib(pid):
    return sum(
        int(line.split()[1]) for p in family(pid) for line in open(f"/proc/{p}/status") if line.startswith("VmRSS")
    )


def need(*tools):
    for tool in tools:
        if not shutil.which(tool):
            sys.exit(f"{tool} is missing: the load, the origin or the certificates need it; apt-get install {tool}")


def site_cookie(port, tls=False):
    """The cookie that a first answer sets; a plain one from who sets none."""
    with socket.create_connection(("127.0.0.1", port)) as s:
        if tls:
            s = ssl._create_unverified_context().wrap_socket(s)
        s.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
        found = re.search(r"(?i)set-cookie: ([^;]*)", s.recv(4096).decode("latin1"))
    return found.group(1) if found else "SITE=none"


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

    def federation(self, port_a, port_b, authority=""):
        """The federation's file; with an authority both sites have TLS."""
        self.file("bench.key", "00" * 31 + "01\n", 0o600)
        return self.file("federation-tls.yaml" if authority else "federation.yaml", FEDERATION.format(
            ca=authority, a=A, b=B, port_a=port_a, port_b=port_b, ssl=", enable_ssl: true" if authority else ""))

    def nginx_http(self, name, workers, http):
        temp = " ".join(f"{kind}_temp_path {self.dir}/{name}-{kind};" for kind in
                        ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return self.file(f"{name}.conf", f"""daemon off; worker_processes {workers}; pid {self.dir}/{name}.pid;
error_log stderr error; events {{ worker_connections 16384; }}
http {{ access_log off; keepalive_requests 1000000000; {temp} {http} }}""")

    def nginx_origin(self, body):
        port = free_port()
        answer = f'return 200 "{body}"' if body else "return 204"
        conf = self.nginx_http(f"origin{port}", 1, f"server {{ listen 127.0.0.1:{port}; location / {{ {answer}; }} }}")
        self.start(["nginx", "-c", conf], port=port)
        return port

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


FEDERATION = """gslb:
  federation_id: bench
  sites:
    - {{ name: site_A, cluster_uuid: cluster-{a} }}
    - {{ name: site_B, cluster_uuid: cluster-{b} }}
pki_profiles: [{{ name: pki, is_federated: true, ca_certs: [{ca}] }}]
application_persistence_profiles:
  - name: sites
    is_federated: true
    persistence_type: gslb_site
    http_cookie_persistence_profile:
      cookie_name: SITE
      timeout: 8h
      keys: [{{ uuid: 00000000-0000-0000-0000-00000000000c, key_file: bench.key, state: active }}]
gslb_services:
  - name: bench
    uuid: gslbservice-00000000-0000-0000-0000-00000000000d
    domain_names: [bench]
    is_federated: true
    site_persistence_enabled: true
    application_persistence_profile_ref: sites
    groups:
      - name: all
        priority: 10
        members:
          - {{ cluster_uuid: cluster-{a}, vs_uuid: virtualservice-{a}, ip: 127.0.0.1, services: [{{ port: {port_a}{ssl} }}] }}
          - {{ cluster_uuid: cluster-{b}, vs_uuid: virtualservice-{b}, ip: 127.0.0.1, services: [{{ port: {port_b}{ssl} }}] }}
"""
