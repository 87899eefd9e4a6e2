"""The cost of calls on each way to a cluster: the measurements of scripts/bench.sh with a cluster.

usage: throughput.py BINARY CLIENT SCRATCH_DIR DOCUMENT

Writes its section of the document: replaces the old one, or adds it at the end.
"""

import contextlib
import json
import os
import resource
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from statistics import median

from lib.droplet import Staging
from lib.lab import Lab, Programs
from lib.members import three_members
from lib.pki import Authority
from lib.processes import ENV, exit_on_signals, output
from lib.proxies import Proxy
from lib.report import MEASURED, bytes_row, file_system, row, table

PROXIES = ("grpc-proxy", "tunnel")
DIRECT = ("direct", "direct, spread")  # clients know one member, or are spread over all
WAYS = (*DIRECT, *PROXIES)
CALLS = ("put", "get")
MANY_CLIENTS = 32
SECONDS = 3
ROUNDS = 6  # a multiple of three: each member has its turn
SINGLE_SECONDS = 1
SINGLE_ROUNDS = 6
CONNECTIONS = 1000
MEMORY_DIR = "/dev/shm"
MEMORY_NEEDED = 4e9

# An HTTP/2 client begins with the preface and an empty SETTINGS frame. The
# server's answer begins with the head of a frame.
HTTP2_START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
FRAME_HEAD = 9


class Bench:
    """A cluster, and each way to it."""

    def __init__(self, lab, ca=None):
        """With `ca`, the members take TLS only."""
        self.client = lab.programs.client
        self.ca = ca
        self.over = ", TLS" if ca else ""
        cluster = three_members(lab, ca=ca).start()
        self.members = [member.client for member in cluster.members]
        flags = ("--cacert", ca.cert) if ca else ()
        self.proxies = {
            mode: Proxy(lab, cluster.endpoints, "--mode", mode, *flags, name=mode, port=port)
            for port, mode in enumerate(PROXIES, 2379)
        }

    def call(self, way, turn, call, clients, seconds):
        """Run the example client. Return its report."""
        trust = ()
        if way in DIRECT:
            first = turn % len(self.members)
            known = self.members[first:] + self.members[:first]
            address = ",".join(known[:1] if way == "direct" else known)
            trust = ("--ca", self.ca.cert) if self.ca else ()
        else:
            address = self.proxies[way].url
        flags = ("--clients", str(clients), "--seconds", str(seconds), "--call", call)
        report = json.loads(output(self.client, "bench", address, *flags, *trust))
        if report["errors"]:
            raise RuntimeError(f"{way}, {call}: {report['errors']} errors")
        return report

    def medians(self, ways, figure, rounds, *args):
        """The median of this figure of the report, for each way. The ways take turns."""
        seen = {way: [] for way in ways}
        for turn in range(rounds):
            for way in ways:
                seen[way].append(self.call(way, turn, *args)[figure])
        print(f"throughput.py: {args}: {seen}", file=sys.stderr)
        return {way: median(values) for way, values in seen.items()}


# Rows. Only the tunnel has targets.


def mode_row(what, mode, value, unit, detail, **limit):
    return row(f"{what}, {mode}", value, unit, detail, **(limit if mode == "tunnel" else {}))


def throughput(bench, limit):
    for call in CALLS:
        rates = bench.medians(WAYS, "ops_per_s", ROUNDS, call, MANY_CLIENTS, SECONDS)
        for base in DIRECT:
            for mode in PROXIES:
                what = f"{MANY_CLIENTS} clients, {call}{bench.over}, against {base}"
                detail = f"{rates[mode]:,.0f} and {rates[base]:,.0f} ops/s"
                yield mode_row(what, mode, rates[mode] / rates[base], "×", detail, at_least=limit)


def latency(bench):
    for call in CALLS:
        ways = ("direct", *PROXIES)
        p50 = bench.medians(ways, "p50_ms", SINGLE_ROUNDS, call, 1, SINGLE_SECONDS)
        for mode in PROXIES:
            added = p50[mode] - p50["direct"]
            detail = f"{p50[mode]:.2f} and {p50['direct']:.2f} ms"
            yield mode_row(f"1 client, {call}, added p50", mode, added, " ms", detail, at_most=0.15)


def peak_memory(benches):
    for mode in PROXIES:
        plain, tls = (bench.proxies[mode].memory_mb("VmHWM") for bench in benches)
        detail = f"plain {plain:.2f}, TLS {tls:.2f} MB"
        yield mode_row("peak memory after that", mode, max(plain, tls), " MB", detail, at_most=5)


def memory_of_many(bench):
    tunnel = bench.proxies["tunnel"]
    host, port = tunnel.address.split(":")
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((host, port), 30))
            for _ in range(CONNECTIONS)
        ]
        for client in clients:
            client.sendall(HTTP2_START)
        for client in clients:
            if len(client.recv(FRAME_HEAD, socket.MSG_WAITALL)) < FRAME_HEAD:
                raise RuntimeError("the tunnel has closed a connection")
        memory = tunnel.memory_mb("VmRSS")
    what = f"memory with {CONNECTIONS:,} connections{bench.over}, tunnel"
    return row(what, memory, " MB", "VmRSS", at_most=40)


def droplet_part(binary, work):
    parts = Staging(binary, work)
    parts.deps.mkdir()
    output(*parts.supply, env=ENV | {"BP_ETCDPROXY_MODE": "tunnel"})
    output(*parts.pack)
    return bytes_row("droplet part, tunnel", parts.archive, 2.2)


def measure(programs, work):
    with Lab(programs, work / "plain") as lab, Lab(programs, work / "tls") as tls_lab:
        plain = Bench(lab)
        yield from throughput(plain, 0.93)
        yield from latency(plain)
        tls = Bench(tls_lab, Authority(tls_lab.work))
        yield from throughput(tls, 0.88)
        yield from peak_memory((plain, tls))
        yield memory_of_many(plain)
        yield memory_of_many(tls)
    yield droplet_part(programs.binary, work)


HEADING = "## Throughput and memory: etcd's proxy, the tunnel, no proxy"

SECTION = """\
{heading}

Three real etcd members, the ways to them and the client run on this one
machine, on loopback. The members' data is in {place}: waiting
for a disk makes all ways look more alike. The load average was {load} at the
start. The client is the Rust crate etcd-client. Each caller has its own
connection and puts (256 bytes, its own key) or gets (linearizable) without a
pause: 1 s to warm up, then {seconds} s that count.

- **direct**: the clients have the address of one member, another one in each
  round. **direct, spread**: each client has the address of one member, in
  turn. So each member serves a third of them, as it does behind the tunnel. A
  follower asks the leader before it answers a get. **grpc-proxy** and
  **tunnel**: `etcdproxy run` with that `--mode` and the addresses of all three
  members. The client has the proxy's address, and speaks plaintext to it.
  **TLS**: the members take TLS only. On the direct ways the client speaks TLS
  itself.
- **{many} clients**: ops/s, the median of {rounds} rounds in which the ways take
  turns, divided by the median of a direct way.
- **1 client**: the p50 of a call, the median of {single_rounds} rounds of {single_seconds} s each,
  minus that of direct.
- **Peak memory**: VmHWM of the proxy's process after all these calls. Of the
  plain proxy and the TLS one, the higher figure counts. **Memory with {connections:,}
  connections**: VmRSS while they are open, after each has carried the first
  frames of HTTP/2 both ways.
- **Droplet part**: the size of a `tar -cz` of all files that `etcdproxy supply`
  writes with BP_ETCDPROXY_MODE=tunnel.

MB are 1,000,000 bytes. Only the tunnel has targets.

{table}
"""


def section(programs, work):
    in_memory = file_system(work) == "tmpfs"
    load = os.getloadavg()[0]
    return SECTION.format(
        heading=HEADING,
        place="memory (tmpfs)" if in_memory else "files, because memory is too small",
        load=f"{load:.1f}",
        seconds=SECONDS,
        many=MANY_CLIENTS,
        rounds=ROUNDS,
        single_rounds=SINGLE_ROUNDS,
        single_seconds=SINGLE_SECONDS,
        connections=CONNECTIONS,
        table=table(MEASURED, measure(programs, work)),
    )


def scratch(on_disk):
    """A directory in memory if there is enough of it, otherwise on disk."""
    place = on_disk
    with contextlib.suppress(OSError):
        if shutil.disk_usage(MEMORY_DIR).free >= MEMORY_NEEDED:
            place = MEMORY_DIR
    return tempfile.TemporaryDirectory(prefix="etcdproxy-", dir=place)


def allow_open_files(count):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def main():
    binary, client, work, path = (Path(arg).absolute() for arg in sys.argv[1:])
    exit_on_signals()
    allow_open_files(2 * CONNECTIONS + 1000)
    with scratch(work) as directory:
        text = section(Programs(binary, client), Path(directory))
    before = path.read_text() if path.exists() else ""
    before = before.split(f"\n{HEADING}\n")[0]
    path.write_text(f"{before}\n{text}")
    print(text[text.index("| what"):], end="")


if __name__ == "__main__":
    main()
