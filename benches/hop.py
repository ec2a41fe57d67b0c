#!/usr/bin/env python3
"""What it costs to send a request home: CPU per request of the site that a client comes to and of its home together,
beside a plain homing in front of a plain homing, in turn, within one run. The aim is a ratio of 1.0 at most.

Each pair is in front of one origin, under one load; every request of the sites carries the same cookie, which names the
other site. In clear, and over TLS where the sites prove themselves to each other and the plain pair verifies one side.

    cargo build --release && benches/hop.py
    benches/hop.py --rounds 9 --body 16384
"""
import argparse, re, statistics, subprocess, sys, urllib.request

from processes import A, B, Processes, cpu_seconds, free_port, need, site_cookie


class Hop(Processes):
    def __init__(self, args):
        super().__init__()
        self.args = args
        self.origin = self.nginx_origin("x" * args.body)
        self.certificates()

    def certificates(self):
        """An authority, and what it signs for each site and for the app."""
        def openssl(*words):
            subprocess.run(["openssl", *words], cwd=self.dir, check=True, capture_output=True)
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=bench")
        for name, names in [("app", "DNS:bench"), ("site_A", f"DNS:sp.site_a,URI:homing://bench/cluster-{A}"),
                            ("site_B", f"DNS:sp.site_b,URI:homing://bench/cluster-{B}")]:
            self.file(f"{name}.ext", f"subjectAltName={names}\n")
            openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
            openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                    "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    def chain(self, tls):
        """A plain homing in front of a plain homing: the processes, and where clients come."""
        first, second = free_port(), free_port()
        secured = ", enable_ssl: true, enable_http2: true, verify: false" if tls else ""
        behind = self.homing(f"second{second}", second, self.origin, tls)
        return [self.homing(f"first{first}", first, second, tls, secured), behind], first, None

    def sites(self, tls):
        """Two sites; clients come to the first and are at home at the second."""
        ports = free_port(), free_port()
        federation = self.federation(*ports, authority="ca.pem" if tls else "")
        home = self.site("site_B", B, ports[1], tls, federation)
        return [self.site("site_A", A, ports[0], tls, federation), home], ports[0], ports[1]

    def site(self, name, uuid, port, tls, federation):
        own = f", ssl_key_and_certificate_ref: {name}" if tls else ""
        more = f"""federation: {federation}
site: {{ name: {name}, cluster_uuid: cluster-{uuid}{own} }}"""
        return self.homing(f"{name}{port}", port, self.origin, tls, more=more, uuid=uuid)

    def homing(self, name, port, server, tls, secured="", more="", uuid=A):
        certificates = ", ".join(f"{{ name: {it}, certificate_file: {it}.pem, key_file: {it}.key }}"
                                 for it in ("app", "site_A", "site_B"))
        service = f"port: {port}" + (", enable_ssl: true, ssl_key_and_certificate_ref: app" if tls else "")
        conf = self.file(f"{name}.yaml", f"""threads: {self.args.threads}
admin: {{ listen: none }}
{more}
ssl_keys_and_certificates: [{certificates}]
pools:
  - {{ name: app, servers: [{{ ip: 127.0.0.1, port: {server} }}]{secured} }}
virtual_services:
  - name: bench
    uuid: virtualservice-{uuid}
    services: [{{ address: 127.0.0.1, {service} }}]
    pool_ref: app
""")
        return self.start([self.args.homing, "run", "--config", conf], {"HOMING_LOG": "warn"}, port)

    def load(self, processes, port, cookie, tls, seconds):
        """CPU per request in microseconds: of each process."""
        before = [cpu_seconds(process.pid) for process in processes]
        out = subprocess.run(["wrk", "-t1", f"-c{self.args.connections}", f"-d{seconds}s", "-H", f"Cookie: {cookie}",
                              f"http{'s' if tls else ''}://127.0.0.1:{port}/"], capture_output=True, text=True).stdout
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        if "Non-2xx" in out or not requests:
            sys.exit(f"requests fail:\n{out}")
        return [(cpu_seconds(it.pid) - was) / requests * 1e6 for it, was in zip(processes, before)]

    def compare(self, title, tls):
        print(f"\n{title} ({self.args.threads} thread(s) each, {self.args.connections} connections, "
              f"{self.args.rounds} rounds of {self.args.seconds} s)")
        pairs, rows = {"plain": self.chain(tls), "sites": self.sites(tls)}, {"plain": [], "sites": []}
        home = pairs["sites"][2]
        # Also the plain pair carries the cookie: its bytes are no part of the question.
        cookie = site_cookie(home, tls)
        for round in range(self.args.rounds + 1):
            for name, (processes, port, _) in pairs.items():
                figures = self.load(processes, port, cookie, tls, self.args.seconds if round else 1)
                if round:
                    rows[name].append(figures)
        sums = {name: [sum(figures) for figures in rows[name]] for name in rows}
        print(f"{'pair':<8}{'first us/req':>14}{'second us/req':>15}{'together':>10}{'ratio':>7}")
        for name in rows:
            first, second = (statistics.median(column) for column in zip(*rows[name]))
            if second < 1:
                sys.exit(f"{name}: the second one had nothing to do, so requests did not cross")
            # Rounds that are neighbours in time are compared with one another.
            ratio = statistics.median(one / base for one, base in zip(sums[name], sums["plain"]))
            print(f"{name:<8}{first:>14.2f}{second:>15.2f}{statistics.median(sums[name]):>10.2f}{ratio:>7.2f}", flush=True)
        for processes, _, _ in pairs.values():
            for process in processes:
                process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--homing", default="target/release/homing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--body", type=int, default=128, help="bytes of the app's answers")
    args = parser.parse_args()
    need("wrk", "nginx", "openssl")
    hop = Hop(args)
    try:
        hop.compare("in clear", tls=False)
        hop.compare("over TLS", tls=True)
    finally:
        hop.stop()


main()
