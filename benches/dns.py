#!/usr/bin/env python3
"""Queries per CPU-second of the DNS responder beside gdnsd and knot, one thread each, in turn, within one run; then
each one's latency at half of the load that it answered.

homing and gdnsd choose between two members with health checks on; knot answers with a fixed record. The aims are half of
gdnsd's queries per CPU-second, and a p99 under 2 ms. With --services it answers for so many services, and says what they
take up and how long a reload of them lasts (aims: 100 MiB, a second).

    cargo build --release && benches/dns.py
    benches/dns.py --services 10000
"""
import argparse, os, re, statistics, subprocess, sys, time, urllib.request

from processes import Processes, cpu_seconds, free_port, need, rss_kib


class Dns(Processes):
    def __init__(self, args):
        super().__init__()
        self.args = args
        # What health checks connect to.
        self.app = free_port()
        both = " ".join(f"listen {ip}:{self.app};" for ip in ("127.0.0.1", "127.0.0.2"))
        self.start(["nginx", "-c", self.nginx_http("app", 1, f"server {{ {both} }}")], port=self.app)
        self.names = [f"s{n}.bench" for n in range(max(args.services, 1))]
        step = max(len(self.names) // 1000, 1)
        self.queries = self.file("queries", "".join(f"{name} A\n" for name in self.names[::step]))

    def homing(self):
        port, self.admin = free_port(), free_port()
        services = "".join(f"""
  - name: {name}
    uuid: gs-{n}
    domain_names: [{name}]
    is_federated: true
    ttl: 30s
    health_monitor_refs: [tcp]
    groups:
      - name: all
        priority: 10
        members:
          - {{ cluster_uuid: cluster-a, vs_uuid: vs-{n}, ip: 127.0.0.1, services: [{{ port: {self.app} }}] }}
          - {{ cluster_uuid: cluster-b, vs_uuid: vs-{n}, ip: 127.0.0.2, services: [{{ port: {self.app} }}] }}"""
                           for n, name in enumerate(self.names))
        federation = self.file("services.yaml", f"""gslb:
  federation_id: bench
  sites:
    - {{ name: site_A, cluster_uuid: cluster-a }}
    - {{ name: site_B, cluster_uuid: cluster-b }}
    - {{ name: dns, cluster_uuid: cluster-c }}
health_monitors: [{{ name: tcp, type: tcp, is_federated: true, send_interval: {self.args.interval} }}]
gslb_services:{services}
""")
        self.config = self.file("homing.yaml", f"""threads: 1
federation: {federation}
admin: {{ listen: 127.0.0.1:{self.admin} }}
site: {{ name: dns, cluster_uuid: cluster-c }}
dns: {{ listen: [127.0.0.1:{port}] }}
""")
        return self.start([self.args.homing, "run", "--config", self.config], {"HOMING_LOG": "warn"}, port), port

    def gdnsd(self):
        port = free_port()
        members = "".join(f"{name} 30 DYNA weighted!bench\n" for name in (name.split(".")[0] for name in self.names))
        os.makedirs(f"{self.dir}/gdnsd/zones")
        self.file("gdnsd/zones/bench", f"@ SOA ns1 hostmaster ( 1 7200 30m 3D 30 )\n@ NS ns1\nns1 A 127.0.0.1\n{members}")
        self.file("gdnsd/config", f"""options => {{ listen => [127.0.0.1], dns_port => {port}, udp_threads => 1,
  tcp_threads => 1, run_dir => {self.dir}, state_dir => {self.dir} }}
service_types => {{ app => {{ plugin => tcp_connect, port => {self.app}, interval => 10 }} }}
plugins => {{ weighted => {{ bench => {{ service_types => [app], multi => false,
  a => [ 127.0.0.1, 50 ], b => [ 127.0.0.2, 50 ] }} }} }}
""")
        return self.start(["gdnsd", "-c", f"{self.dir}/gdnsd", "start"], port=port), port

    def knot(self):
        port = free_port()
        members = "".join(f"{name}. 30 A 127.0.0.1\n" for name in self.names)
        zone = self.file("bench.zone", f"bench. 60 SOA ns1.bench. hostmaster.bench. 1 7200 1800 259200 30\n{members}")
        conf = self.file("knot.conf", f"""server:
    listen: 127.0.0.1@{port}
    rundir: {self.dir}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {self.dir}
zone:
  - domain: bench
    file: {zone}
""")
        return self.start(["knotd", "-c", conf], port=port), port

    def load(self, port, seconds, *more):
        return subprocess.run(["dnsperf", "-s", "127.0.0.1", "-p", str(port), "-d", self.queries, "-l", str(seconds),
                               "-c", "8", "-T", "1", *more], capture_output=True, text=True).stdout

    def speed(self, process, port, seconds):
        """Queries per CPU-second, and per second."""
        before = cpu_seconds(process.pid)
        out = self.load(port, seconds)
        spent = cpu_seconds(process.pid) - before
        completed = int(re.search(r"Queries completed: +(\d+)", out).group(1))
        lost = int(re.search(r"Queries lost: +(\d+)", out).group(1))
        if not re.search(r"NOERROR \d+ \(100.00%\)", out) or lost > completed / 1000:
            sys.exit(f"queries fail:\n{out}")
        return completed / spent, float(re.search(r"Queries per second: +([\d.]+)", out).group(1))

    def p99(self, port, rate):
        """In milliseconds, of so many queries per second."""
        out = self.load(port, self.args.seconds, "-Q", str(int(rate)), "-v")
        latencies = sorted(float(line.split()[-1]) for line in out.splitlines() if line.startswith("> NOERROR"))
        return latencies[len(latencies) * 99 // 100] * 1e3

    def compare(self):
        servers = {"homing": self.homing(), "gdnsd": self.gdnsd(), "knot": self.knot()}
        rows = {name: [] for name in servers}
        for round in range(self.args.rounds + 1):
            for name, (process, port) in servers.items():
                figures = self.speed(process, port, self.args.seconds if round else 1)
                if round:
                    rows[name].append(figures)
        print(f"{len(self.names)} service(s), {self.args.rounds} rounds of {self.args.seconds} s")
        print(f"{'server':<8}{'queries/CPU-s':>15}{'of gdnsd':>10}{'queries/s':>11}{'p99 ms at half':>16}{'MiB':>7}")
        for name, (process, port) in servers.items():
            per_cpu, per_second = (statistics.median(column) for column in zip(*rows[name]))
            ratio = statistics.median(one[0] / base[0] for one, base in zip(rows[name], rows["gdnsd"]))
            print(f"{name:<8}{per_cpu:>15.0f}{ratio:>10.2f}{per_second:>11.0f}{self.p99(port, per_second / 2):>16.2f}"
                  f"{rss_kib(process.pid) / 1024:>7.0f}", flush=True)
        self.reload(*servers["homing"])

    def reload(self, process, port):
        """What a reload of changed services takes."""
        text = open(f"{self.dir}/services.yaml").read().replace("ttl: 30s", "ttl: 31s")
        self.file("services.yaml", text)
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}/api/v1/reload", method="POST")
        begun = time.time()
        urllib.request.urlopen(request).read()
        took = time.time() - begun
        print(f"homing reloads them in {took:.2f} s, and has {rss_kib(process.pid) / 1024:.0f} MiB after")

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--homing", default="target/release/homing")
    parser.add_argument("--services", type=int, default=1)
    parser.add_argument("--interval", default="10s", help="of homing's health checks")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    args = parser.parse_args()
    need("dnsperf", "gdnsd", "knotd", "nginx")
    dns = Dns(args)
    try:
        dns.compare()
    finally:
        dns.stop()


main()
