"""What calls cost on each way to a cluster: the part of scripts/bench.sh that
needs one. It writes its section of the document, at the end or in place.

usage: throughput.py BINARY CLIENT SCRATCH_DIR DOCUMENT
"""

import contextlib
import json
import os
import resource
import signal
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from statistics import median

from bench import ENV, STOPPING, Row, at_most, output
from chaos import START_SECONDS, Cluster, Lab, Member, Subject

PROXIES = ("grpc-proxy", "tunnel")
# A client that knows one member, and clients that are spread over all.
DIRECT = ("direct", "direct, spread")
WAYS = (*DIRECT, *PROXIES)
CALLS = ("put", "get")
TIMES_EACH_MEMBER = 2
SINGLE_TIMES_EACH_MEMBER = 2
MANY_CLIENTS = 32
CONNECTIONS = 1000
MEMORY_DIR = "/dev/shm"
MEMORY_NEEDED = 4e9
SECONDS = 3
SINGLE_SECONDS = 1

# What an HTTP/2 client begins with: preface and an empty SETTINGS frame. The
# member's answer begins with the head of a frame.
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
FRAME_HEAD = 9


# Clusters


class TlsMember(Member):
    SCHEME = "https"

    def __init__(self, lab, number):
        super().__init__(lab, number)
        cert, key = f"{lab.work}/{self.name}.pem", f"{lab.work}/{self.name}.key"
        certificate(cert, key, lab.host, "-CA", ca(lab), "-CAkey", ca_key(lab))
        self.flags = ("--cert-file", cert, "--key-file", key)

    def wait_ready(self):
        context = ssl.create_default_context(cafile=ca(self.lab))
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError):
                url = f"{self.client}/health"
                urllib.request.urlopen(url, timeout=5, context=context).close()
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.client} does not answer")
            time.sleep(0.05)


def ca(lab):
    return f"{lab.work}/ca.pem"


def ca_key(lab):
    return f"{lab.work}/ca.key"


def certificate(cert, key, name, *signed_by, kind=None):
    """For the host `name`, or for what `kind` says."""
    kind = (kind or f"IP:{name}", "FALSE") if signed_by else ("DNS:ca", "TRUE")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-days", "2", "-nodes",
            "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-subj", f"/CN={name}" if name else "/O=etcdproxy", "-addext", f"subjectAltName={kind[0]}",
            "-addext", f"basicConstraints=critical,CA:{kind[1]}",
            "-out", cert, "-keyout", key, *signed_by,
        ],
        check=True, timeout=60, capture_output=True,
    )


class Bench:
    """A cluster, and each way to it."""

    def __init__(self, lab, tls):
        self.lab = lab
        self.tls = tls
        if tls:
            certificate(ca(lab), ca_key(lab), "ca")
        cluster = Cluster(lab, TlsMember if tls else Member)
        self.members = [member.client for member in cluster.members]
        self.proxies = {}
        self.addresses = {}
        for port, mode in enumerate(PROXIES, 2379):
            self.addresses[mode] = address = f"{lab.host}:{port}"
            self.proxies[mode] = lab.start(
                mode, lab.subject.binary, "run", "--mode", mode,
                "--endpoints", cluster.endpoints, "--listen-addr", address,
                *(("--cacert", ca(lab)) if tls else ()),
            )
            lab.wait_ready(address)

    def call(self, way, turn, call, clients, seconds):
        """What the client reports."""
        if way in DIRECT:
            first = turn % len(self.members)
            known = self.members[first:] + self.members[:first]
            address = ",".join(known[:1] if way == "direct" else known)
            trust = ("--ca", ca(self.lab)) if self.tls else ()
        else:
            address = f"http://{self.addresses[way]}"
            trust = ()
        report = json.loads(output(
            self.lab.subject.client, "bench", address,
            "--clients", str(clients), "--seconds", str(seconds),
            "--call", call, *trust,
        ))
        if report["errors"]:
            raise RuntimeError(f"{way}, {call}: {report['errors']} errors")
        return report

    def in_turns(self, ways, what, times_each_member, *args):
        """The median of what the client reports, for each way."""
        seen = {way: [] for way in ways}
        for turn in range(times_each_member * len(self.members)):
            for way in ways:
                seen[way].append(self.call(way, turn, *args)[what])
        print(f"throughput.py: {args}: {seen}", file=sys.stderr)
        return {way: median(values) for way, values in seen.items()}

    def memory(self, mode, what):
        """In MB of 1,000,000 bytes."""
        status = Path(f"/proc/{self.proxies[mode].pid}/status").read_text()
        (line,) = (l for l in status.splitlines() if l.startswith(f"{what}:"))
        return int(line.split()[1]) * 1024 / 1e6


# Rows. Only the tunnel has targets.


def row(what, mode, measured, target, excess, unit):
    if mode != "tunnel":
        return Row(f"{what}, {mode}", measured, "–", None, "")
    missed_by = (f"{excess:.2f}" if excess >= 0.01 else "<0.01") + unit
    return Row(f"{what}, {mode}", measured, target, excess <= 0, missed_by)


def row_at_most(what, mode, value, limit, unit, detail):
    measured = f"{value:.2f}{unit} ({detail})"
    target = f"at most {limit:.2f}{unit}"
    return row(what, mode, measured, target, value - limit, unit)


def throughput(bench, limit):
    over = ", TLS" if bench.tls else ""
    for call in CALLS:
        rates = bench.in_turns(
            WAYS, "ops_per_s", TIMES_EACH_MEMBER, call, MANY_CLIENTS, SECONDS
        )
        for base in DIRECT:
            for mode in PROXIES:
                ratio = rates[mode] / rates[base]
                detail = f"{rates[mode]:,.0f} and {rates[base]:,.0f} ops/s"
                yield row(
                    f"{MANY_CLIENTS} clients, {call}{over}, against {base}",
                    mode, f"{ratio:.2f}× ({detail})", f"at least {limit:.2f}×",
                    limit - ratio, "×",
                )


def latency(bench):
    for call in CALLS:
        p50 = bench.in_turns(
            ("direct", *PROXIES), "p50_ms",
            SINGLE_TIMES_EACH_MEMBER, call, 1, SINGLE_SECONDS,
        )
        for mode in PROXIES:
            yield row_at_most(
                f"1 client, {call}, added p50", mode,
                p50[mode] - p50["direct"], 0.15, " ms",
                f"{p50[mode]:.2f} and {p50['direct']:.2f} ms",
            )


def peak_memory(benches):
    for mode in PROXIES:
        plain, tls = (bench.memory(mode, "VmHWM") for bench in benches)
        yield row_at_most(
            "peak memory after that", mode, max(plain, tls), 5, " MB",
            f"plain {plain:.2f}, TLS {tls:.2f} MB",
        )


def memory_of_many(bench):
    over = ", TLS" if bench.tls else ""
    host, port = bench.addresses["tunnel"].split(":")
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((host, port), 30))
            for _ in range(CONNECTIONS)
        ]
        for client in clients:
            client.sendall(GREETING)
        for client in clients:
            if len(client.recv(FRAME_HEAD, socket.MSG_WAITALL)) < FRAME_HEAD:
                raise RuntimeError("the tunnel has closed a connection")
        memory = bench.memory("tunnel", "VmRSS")
    what = f"memory with {CONNECTIONS:,} connections{over}"
    return row_at_most(what, "tunnel", memory, 40, " MB", "VmRSS")


def droplet_part(subject):
    build, cache, deps, droplet = (
        subject.work / name for name in ("build", "cache", "deps", "x.tgz")
    )
    for directory in (build, cache, deps):
        directory.mkdir()
    env = ENV | {"BP_ETCDPROXY_MODE": "tunnel"}
    output(subject.binary, "supply", build, cache, deps, "0", env=env)
    output("tar", "-C", deps, "-czf", droplet, ".")
    count = droplet.stat().st_size
    detail = f"{count:,} bytes"
    return at_most("droplet part, tunnel", count / 1e6, 1.4, " MB", detail)


def measure(subject):
    with Lab(subject, "plain") as lab, Lab(subject, "tls") as tls_lab:
        plain = Bench(lab, tls=False)
        yield from throughput(plain, 0.93)
        yield from latency(plain)
        tls = Bench(tls_lab, tls=True)
        yield from throughput(tls, 0.88)
        yield from peak_memory((plain, tls))
        yield memory_of_many(plain)
        yield memory_of_many(tls)
    yield droplet_part(subject)


HEADING = "## Throughput and memory: etcd's proxy, the tunnel, no proxy"

SECTION = """\
{heading}

Three real etcd members, the ways to them and the client run on this one
machine, on loopback. The members' data is in {place}, so that etcd does not
wait for a disk, which would make all ways look more alike. Load average {load} at
the start. The client is the Rust crate etcd-client, one connection to each
caller, which puts (256 bytes, its own key) or gets (linearizable) without a
pause; 1 s to warm up, then {seconds} s that count.

- **direct**: the clients have the address of one member, in each round that of
  another. **direct, spread**: they have one each in turn, and so a member
  serves a third of them, as it does behind the tunnel; a follower asks the
  leader before it answers a get. **grpc-proxy** and **tunnel**: `etcdproxy run` with that `--mode`
  and the addresses of all three; the client has the proxy's, and speaks
  plaintext to it. **TLS**: members take TLS only; directly, the client speaks
  it itself.
- **{many} clients**: ops/s, the median of {rounds} rounds in which the ways take
  turns, divided by that of a direct way.
- **1 client**: p50 of a call, the median of {single_rounds} rounds of {single_seconds} s each,
  less that of direct.
- **Peak memory**: VmHWM of the proxy's process after all of that, the greater
  of the plain one and the TLS one. **Memory with {connections:,} connections**: VmRSS
  while they are open and each has carried HTTP/2's first frames both ways.
- **Droplet part**: what `tar -cz` makes of all that `etcdproxy supply` leaves
  with BP_ETCDPROXY_MODE=tunnel. MB are 1,000,000 bytes.

Targets are the tunnel's.

{table}
"""


def section(subject):
    load = os.getloadavg()[0]
    in_memory = output("df", "--output=fstype", subject.work).endswith("tmpfs")
    table = ["| what | measured | target | met |", "|---|---|---|---|"]
    table += map(str, measure(subject))
    return SECTION.format(
        heading=HEADING,
        place="memory (tmpfs)" if in_memory else "files, for want of memory",
        load=f"{load:.1f}",
        seconds=SECONDS,
        many=MANY_CLIENTS,
        rounds=3 * TIMES_EACH_MEMBER,
        single_rounds=3 * SINGLE_TIMES_EACH_MEMBER,
        single_seconds=SINGLE_SECONDS,
        connections=CONNECTIONS,
        table="\n".join(table),
    )


def scratch(on_disk):
    """In memory, where there is enough of it."""
    place = on_disk
    with contextlib.suppress(OSError):
        if shutil.disk_usage(MEMORY_DIR).free >= MEMORY_NEEDED:
            place = MEMORY_DIR
    return tempfile.TemporaryDirectory(prefix="etcdproxy-", dir=place)


def main():
    binary, client, work, path = (Path(arg).absolute() for arg in sys.argv[1:])
    for number in STOPPING:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 2 * CONNECTIONS + 1000
    if hard != resource.RLIM_INFINITY:
        files = min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    with scratch(work) as directory:
        text = section(Subject(binary, client, Path(directory)))
    before = path.read_text() if path.exists() else ""
    before = before.split(f"\n{HEADING}\n")[0]
    path.write_text(f"{before}\n{text}")
    print(text[text.index("| what"):], end="")


if __name__ == "__main__":
    main()
