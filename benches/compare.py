#!/usr/bin/env python3
"""CPU per request and memory per idle connection of homing, beside a bare Pingora proxy and the peers that are
installed (nginx, HAProxy, Envoy), in front of one origin, under one load, in turn, within one run.

CPU comes from the kernel's accounting of the proxy's processes; it is the figure that holds on a noisy machine.
Compare within one run only. Everything stays on 127.0.0.1, is bounded in time, and ends by itself.

    make bench                     # all of it
    benches/compare.py --help      # parts of it
"""
import argparse, json, re, shutil, socket, statistics, subprocess, sys, time

from processes import A, Processes, cpu_seconds, free_port, need, rss_kib, site_cookie


class Bench(Processes):
    def __init__(self, args):
        super().__init__()
        self.args = args
        self.origin = self.nginx_origin("x" * args.body)
        self.clones = self.nginx_origin("x" * args.clone_body) if args.clone_body else self.nginx_origin("")

    # Every proxy: (name, argv, environment), listening on `port`.

    def nginx(self, port, clone):
        mirror = "mirror /_mirror;" if clone else ""
        to_clone = "location = /_mirror { internal; proxy_pass http://clone; proxy_http_version 1.1; " \
                   "proxy_set_header Connection ''; }" if clone else ""
        conf = self.nginx_http(f"nginx{port}", self.args.threads, f"""
upstream app {{ server 127.0.0.1:{self.origin}; keepalive 256; keepalive_requests 1000000000; }}
upstream clone {{ server 127.0.0.1:{self.clones}; keepalive 256; keepalive_requests 1000000000; }}
server {{ listen 127.0.0.1:{port} reuseport;
  location / {{ {mirror} proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection '';
                proxy_set_header Host $host; }} {to_clone} }}""")
        return ["nginx", "-c", conf], {}

    def haproxy(self, port, clone):
        conf = self.file(f"haproxy{port}.cfg", f"""global
  nbthread {self.args.threads}
  maxconn 8192
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 5s
  http-reuse always
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s1 127.0.0.1:{self.origin}
""")
        return ["haproxy", "-db", "-f", conf], {}

    def envoy(self, port, clone):
        def cluster(name, to):
            return f"""
  - name: {name}
    type: STATIC
    connect_timeout: 5s
    load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {to}}}}}}}}}]}}]}}
    circuit_breakers: {{thresholds: [{{max_connections: 4096, max_pending_requests: 4096, max_requests: 8192}}]}}"""
        mirror = "request_mirror_policies: [{cluster: clone}]" if clone else ""
        conf = self.file(f"envoy{port}.yaml", f"""static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: app, {mirror}}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:{cluster("app", self.origin)}{cluster("clone", self.clones)}
""")
        return [shutil.which("envoy"), "-c", conf, "--concurrency", str(self.args.threads), "-l", "off", "--base-id",
                str(port)], {}

    def bare(self, port, clone):
        return [self.args.bare], {"LISTEN": f"127.0.0.1:{port}", "ORIGIN": f"127.0.0.1:{self.origin}",
                                  "THREADS": str(self.args.threads)}

    def homing(self, port, clone, site=False):
        name = f"homing{port}"
        section = "" if not clone else """
    clone: { pool_ref: clones, tokens: ["cookie:SID", source_ip] }"""
        federation = ""
        if site:
            self.federation(port, free_port())
            federation = f"""
site: {{ name: site_A, cluster_uuid: cluster-{A} }}
federation: federation.yaml"""
        conf = self.file(f"{name}.yaml", f"""threads: {self.args.threads}
admin: {{ listen: none }}{federation}
pools:
  - {{ name: app, servers: [{{ ip: 127.0.0.1, port: {self.origin} }}] }}
  - {{ name: clones, servers: [{{ ip: 127.0.0.1, port: {self.clones} }}] }}
virtual_services:
  - name: bench
    uuid: virtualservice-{A}
    services: [{{ address: 127.0.0.1, port: {port} }}]
    pool_ref: app{section}
""")
        return [self.args.homing, "run", "--config", conf], {"HOMING_LOG": "warn"}

    def homing_site(self, port, clone):
        return self.homing(port, False, site=True)

    def homing_clone(self, port, clone):
        return self.homing(port, True)

    def load(self, process, port, seconds, cookie):
        header = ["-H", f"Cookie: {site_cookie(port)}"] if cookie else []
        before = cpu_seconds(process.pid)
        out = subprocess.run(
            ["wrk", "-t1", f"-c{self.args.connections}", f"-d{seconds}s", "--latency", *header,
             f"http://127.0.0.1:{port}/"], capture_output=True, text=True).stdout
        spent = cpu_seconds(process.pid) - before
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        latency = dict(re.findall(r"(50|99)%\s+([\d.]+[mu]?s)", out))
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        return spent / max(requests, 1) * 1e6, requests / seconds, latency, int(bad.group(1)) if bad else 0

    def idle(self, process, port):
        """KiB per idle keep-alive connection."""
        def ask(s):
            s.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += s.recv(4096)
        for _ in range(200):
            with socket.create_connection(("127.0.0.1", port)) as s:
                ask(s)
        before, held = rss_kib(process.pid), []
        for _ in range(self.args.idle):
            held.append(socket.create_connection(("127.0.0.1", port)))
            ask(held[-1])
        time.sleep(1)
        grown = rss_kib(process.pid) - before
        for s in held:
            s.close()
        return grown / self.args.idle

    def compare(self, title, names, clone=False, cookie=False):
        print(f"\n{title} ({self.args.threads} thread(s), {self.args.connections} connections, "
              f"{self.args.rounds} rounds of {self.args.seconds} s)")
        rows, ends = {}, []
        for name in names:
            port = free_port()
            argv, env = getattr(self, name)(port, clone and name != "homing")
            ends.append((name, self.start(argv, env, port), port))
            rows[name] = []
        for round in range(self.args.rounds + 1):
            for name, process, port in ends:
                figures = self.load(process, port, self.args.seconds if round else 1, cookie)
                if round:
                    rows[name].append(figures)
        base = statistics.median(figures[0] for figures in rows[names[0]])
        print(f"{'proxy':<14}{'CPU us/req':>11}{'ratio':>7}{'req/s':>9}{'p50':>10}{'p99':>10}{'KiB/idle':>10}{'bad':>6}")
        for name, process, port in ends:
            figures = rows[name]
            cpu = statistics.median(f[0] for f in figures)
            idle = f"{self.idle(process, port):.1f}" if self.args.idle else "-"
            print(f"{name:<14}{cpu:>11.2f}{cpu / base:>7.2f}{statistics.median(f[1] for f in figures):>9.0f}"
                  f"{figures[-1][2].get('50', '?'):>10}{figures[-1][2].get('99', '?'):>10}{idle:>10}"
                  f"{sum(f[3] for f in figures):>6}", flush=True)
            process.kill()


def build_bare_proxy():
    """The yardstick, with homing's profile and allocator."""
    build = subprocess.run(["cargo", "build", "--release", "--bench", "bare_proxy", "--message-format=json"],
                           stdout=subprocess.PIPE, text=True)
    if build.returncode:
        sys.exit("the bare proxy does not build")
    messages = [json.loads(line) for line in build.stdout.splitlines() if line.startswith("{")]
    return next(it["executable"] for it in messages
                if it.get("executable") and it["target"]["name"] == "bare_proxy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--homing", default="target/release/homing")
    parser.add_argument("--bare", help="the bare Pingora proxy; default: built from benches/bare_proxy.rs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--body", type=int, default=128, help="bytes of the app's answers")
    parser.add_argument("--clone-body", type=int, default=0, help="bytes of the clone members' answers; 0: 204")
    parser.add_argument("--idle", type=int, default=2000, help="idle connections to weigh; 0: none")
    args = parser.parse_args()
    need("wrk", "nginx")
    args.bare = args.bare or build_bare_proxy()
    bench = Bench(args)
    try:
        peers = [name for name in ("nginx", "haproxy", "envoy") if shutil.which(name)]
        bench.compare("plain", ["bare", "homing", *peers])
        bench.compare("site persistence, no cookie yet", ["homing", "homing_site"])
        bench.compare("site persistence, every request with its cookie", ["homing", "homing_site"], cookie=True)
        mirrors = [name for name in peers if name != "haproxy"]
        args.idle = 0
        bench.compare("with a clone", ["homing", "homing_clone", *mirrors], clone=True)
    finally:
        bench.stop()


main()
