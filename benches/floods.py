#!/usr/bin/env python3
"""What many idle clients cost, and what one that floods does to another: memory per idle connection, in clear and over TLS,
of clients that have sent half a head or one byte of a body, of tunnels and of HTTP/2 streams in which nothing happens, and the
latency of a client that asks every 10 ms while another process floods. The
aims are 60 and 280 MiB for 10,000 idle clients, 8 MiB for 1,000 half heads, and a p99 of 250 ms without a failed request.

    cargo build --release && benches/floods.py
    benches/floods.py --seconds 5 --clients 1000
"""
import argparse, asyncio, multiprocessing, resource, socket, ssl, struct, subprocess, time

from processes import Processes, cpu_seconds, free_port, need, rss_kib

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, CONTINUATION = 0, 1, 3, 4, 6, 9
END_STREAM, END_HEADERS = 1, 4
# A GET and a POST of / on http://b, by the static table.
GET, POST = b"\x82\x86\x84\x41\x01b", b"\x83\x86\x84\x41\x01b"


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def connect(port):
    return socket.create_connection(("127.0.0.1", port))


def fed(count, start, pause):
    """So many clients that send a byte now and then."""
    def flood(port, end):
        clients = []
        while time.time() < end:
            while len(clients) < count:
                clients.append(connect(port))
                clients[-1].sendall(start)
            for client in list(clients):
                try:
                    client.sendall(b"a")
                except OSError:
                    clients.remove(client)
            time.sleep(pause)
    return flood


def connections(port, end):
    while time.time() < end:
        try:
            connect(port).close()
        except OSError:
            pass


def http2(first, frames):
    """An HTTP/2 client that sends frames for as long as it may, then comes again; `frames`: those for a stream."""
    def flood(port, end):
        while time.time() < end:
            client = connect(port)
            client.settimeout(2)
            try:
                client.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + first)
                stream = 1
                while time.time() < end:
                    client.sendall(b"".join(frames(stream + 2 * n) for n in range(100)))
                    stream += 200
            except OSError:
                pass
            finally:
                client.close()
    return flood


FLOODS = {
    "none": None,
    "slow heads": fed(1000, b"GET / HTTP/1.1\r\nHost: b\r\nX-", 1),
    "slow bodies": fed(500, b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 100000\r\n\r\n", 0.5),
    "connections": connections,
    "rapid reset": http2(b"", lambda n: frame(HEADERS, END_STREAM | END_HEADERS, n, GET)
                         + frame(RST_STREAM, 0, n, b"\0\0\0\x08")),
    "PING": http2(b"", lambda n: frame(PING, 0, 0, bytes(8))),
    "SETTINGS": http2(b"", lambda n: frame(SETTINGS, 0, 0, b"\0\3\0\0\0\x64")),
    "CONTINUATION": http2(frame(HEADERS, END_STREAM, 1, GET), lambda n: frame(CONTINUATION, 0, 1, b"\0\1a\1b")),
    "empty DATA": http2(frame(HEADERS, END_HEADERS, 1, POST), lambda n: frame(DATA, 0, 1, b"")),
}


SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def switching(port):
    """A server that agrees to every tunnel and says nothing more."""
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHING)
        await reader.read()

    async def run():
        await (await asyncio.start_server(serve, "127.0.0.1", port, backlog=2000)).serve_forever()
    asyncio.run(run())


def canary(port, end, told):
    """Asks on new connections; tells how long each took, and how many failed."""
    took, failed = [], 0
    while time.time() < end:
        begun, answer = time.time(), b""
        try:
            with connect(port) as client:
                client.settimeout(10)
                client.sendall(b"GET / HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n")
                while piece := client.recv(4096):
                    answer += piece
        except OSError:
            pass
        failed += not answer.startswith(b"HTTP/1.1 200")
        took.append(time.time() - begun)
        time.sleep(0.01)
    told.put((sorted(took), failed))


class Floods(Processes):
    def __init__(self, args):
        super().__init__()
        self.args = args
        self.origin = self.nginx_origin("x" * 128)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-keyout", "b.key", "-out", "b.pem", "-subj", "/CN=b"], cwd=self.dir, check=True,
                       capture_output=True)

    def homing(self, threads, tls=False, origin=None):
        port = free_port()
        secured = ", enable_ssl: true, ssl_key_and_certificate_ref: b" if tls else ""
        conf = self.file(f"homing{port}.yaml", f"""threads: {threads}
admin: {{ listen: none }}
ssl_keys_and_certificates: [{{ name: b, certificate_file: b.pem, key_file: b.key }}]
application_profiles:
  - {{ name: b, client_header_timeout: 5s, keepalive_timeout: 600s, http2: {{ prior_knowledge: {str(not tls).lower()} }} }}
pools: [{{ name: app, servers: [{{ ip: 127.0.0.1, port: {origin or self.origin} }}] }}]
virtual_services:
  - name: b
    application_profile_ref: b
    services: [{{ address: 127.0.0.1, port: {port}{secured} }}]
    pool_ref: app
""")
        return self.start([self.args.homing, "run", "--config", conf], {"HOMING_LOG": "error"}, port), port

    def idle(self, tls):
        process, port = self.homing(1, tls)
        context = ssl._create_unverified_context()

        def served():
            client = context.wrap_socket(connect(port)) if tls else connect(port)
            client.sendall(b"GET / HTTP/1.1\r\nHost: b\r\n\r\n")
            answer = b""
            while b"x" * 128 not in answer:
                answer += client.recv(4096)
            return client
        self.weigh(process, "idle, TLS" if tls else "idle", self.args.clients, served)

    def half_heads(self):
        process, port = self.homing(1)

        def halfway():
            client = connect(port)
            client.sendall(b"GET / HTTP/1.1\r\nHost: b\r\nX-")
            return client
        self.weigh(process, "half heads", 1000, halfway)

    def slow_bodies(self):
        process, port = self.homing(1)

        def begun():
            client = connect(port)
            client.sendall(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 100000\r\n\r\n")
            time.sleep(0.002)
            client.sendall(b"a")
            return client
        self.weigh(process, "slow bodies", 500, begun)

    def tunnels(self):
        origin = free_port()
        server = multiprocessing.Process(target=switching, args=(origin,), daemon=True)
        server.start()
        process, port = self.homing(1, origin=origin)

        def opened():
            client, answer = connect(port), b""
            client.sendall(b"GET / HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while b"\r\n\r\n" not in answer:
                answer += client.recv(4096)
            assert b" 101 " in answer, answer
            return client
        self.weigh(process, "tunnels", 1000, opened)
        server.kill()

    def streams(self):
        process, port = self.homing(1)

        def begun():
            client = connect(port)
            client.sendall(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, END_HEADERS, 1, POST))
            client.sendall(frame(DATA, 0, 1, b"a"))
            return client
        self.weigh(process, "streams", 1000, begun)

    def weigh(self, process, what, count, client):
        clients = [client() for _ in range(20)]
        before = rss_kib(process.pid)
        clients += [client() for _ in range(count)]
        time.sleep(1)
        more = rss_kib(process.pid) - before
        print(f"{what:<13}{count:>6} clients take {more / 1024:.1f} MiB, {more / count:.1f} KiB each", flush=True)
        for it in clients:
            it.close()
        process.kill()

    def floods(self):
        process, port = self.homing(2)
        print(f"\n{'flood':<13}{'requests':>9}{'failed':>7}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}{'% CPU':>7}{'MiB':>5}"
              f"   ({self.args.seconds} s each)")
        for name, flood in FLOODS.items():
            end, told, peak = time.time() + self.args.seconds, multiprocessing.Queue(), 0
            other = multiprocessing.Process(target=canary, args=(port, end, told))
            attacker = multiprocessing.Process(target=flood, args=(port, end)) if flood else None
            before = cpu_seconds(process.pid)
            for it in filter(None, (other, attacker)):
                it.start()
            while time.time() < end:
                peak = max(peak, rss_kib(process.pid))
                time.sleep(0.5)
            took, failed = told.get()
            cpu = (cpu_seconds(process.pid) - before) / self.args.seconds * 100
            for it in filter(None, (other, attacker)):
                it.join(5)
                it.kill()
            p50, p99, most = (took[n] * 1e3 for n in (len(took) // 2, len(took) * 99 // 100, -1))
            print(f"{name:<13}{len(took):>9}{failed:>7}{p50:>8.1f}{p99:>8.1f}{most:>8.0f}{cpu:>7.0f}{peak / 1024:>5.0f}",
                  flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--homing", default="target/release/homing")
    parser.add_argument("--clients", type=int, default=8900, help="that are idle; homing takes about 8,970 of 20,000 open files")
    parser.add_argument("--seconds", type=int, default=30, help="of each flood")
    args = parser.parse_args()
    need("nginx", "openssl")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    floods = Floods(args)
    try:
        floods.idle(tls=False)
        floods.idle(tls=True)
        floods.half_heads()
        floods.slow_bodies()
        floods.tunnels()
        floods.streams()
        floods.floods()
    finally:
        floods.stop()


main()
