"""The cost of calls on each way to a cluster: the measurements of scripts/bench.sh with a cluster.

usage: throughput.py BINARY CLIENT SCRATCH_DIR DOCUMENT

Writes its section of the document: replaces the old one, or adds it at the end. For a quick and
rough look, ETCDPROXY_BENCH_ROUNDS=1.
"""

import contextlib
import os
import re
import socket
import sys
from pathlib import Path
from typing import NamedTuple, Optional

from lib.droplet import Staging
from lib.lab import Lab, Programs
from lib.pki import Authority
from lib.processes import ENV, exit_on_signals, output
from lib.report import MEASURED, bytes_row, file_system, row, table
from lib.room import allow_open_files, scratch
from lib.ways import DIRECT, LEADER, Ways

NATIVE = "native"
MODES = (NATIVE, "grpc-proxy")
CALLS = ("get", "put")
FEW, MANY, MOST = 32, 256, 1000  # clients
# With a multiple of three, each member is the first equally often.
ROUNDS = int(os.environ.get("ETCDPROXY_BENCH_ROUNDS", "6"))
SECONDS = 1.5
SINGLE_SECONDS = 0.5
CONNECTIONS = 1000

# An HTTP/2 client begins with the preface and an empty SETTINGS frame. The
# server's answer begins with the head of a frame.
HTTP2_START = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"
FRAME_HEAD = 9


class Setup(NamedTuple):
    """A kind of cluster, and the targets of mode native on it."""

    name: str
    at_least: dict  # (call, clients): part of the direct rate
    proxy_cpu: Optional[float] = None  # seconds for 100,000 gets of FEW clients
    members_cpu: Optional[float] = None  # part of the direct one, for gets of MANY clients
    tls: bool = False
    http_port: bool = False

    def ways(self, lab):
        ca = Authority(lab.work) if self.tls else None
        return Ways(lab, (NATIVE,) if self.http_port else MODES, ca=ca, http_port=self.http_port)

    def row(self, what, mode, *figures, **limit):
        """A row about a proxy. Only mode native has targets."""
        name = f"{what}, {self.name}, {mode}"
        return row(name, *figures, **(limit if mode == NATIVE else {}))


PLAIN = Setup(
    "plain",
    {
        ("get", FEW): 1.15, ("put", FEW): 1.00,
        ("get", MANY): 1.25, ("put", MANY): 1.00,
        ("get", MOST): 1.35,
    },
    proxy_cpu=1.0, members_cpu=0.70,
)
TLS = Setup(
    "TLS",
    {
        ("get", FEW): 1.00, ("put", FEW): 0.95,
        ("get", MANY): 1.05, ("put", MANY): 1.00,
    },
    proxy_cpu=1.4, tls=True,
)
GRPC_PORT = Setup(
    "TLS and a gRPC port",
    {
        ("get", FEW): 1.15, ("put", FEW): 1.00,
        ("get", MANY): 1.30, ("put", MANY): 1.00,
    },
    tls=True, http_port=True,
)


def medians(ways, names, *args):
    found = ways.medians(names, ROUNDS, *args)
    for name, cost in found.items():
        print(f"throughput.py: {args}: {name}: {cost}", file=sys.stderr)
    return found


# Rows


def one_client(setup, ways):
    for call in CALLS:
        costs = medians(ways, (DIRECT, LEADER, *MODES), call, 1, SINGLE_SECONDS)
        for base, limit in ((DIRECT, {"at_most": 0.08}), (LEADER, {})):
            for mode in MODES:
                ours, theirs = costs[mode].p50_ms, costs[base].p50_ms
                what = f"{call}, 1 client, p50 added to {base}"
                detail = f"{ours:.3f} and {theirs:.3f} ms"
                yield setup.row(what, mode, ours - theirs, " ms", detail, **limit)


def many_clients(setup, ways, clients, modes):
    """All calls for which `setup` has a target."""
    for (call, wanted), at_least in setup.at_least.items():
        if wanted != clients:
            continue
        costs = medians(ways, (DIRECT, *modes), call, clients, SECONDS)
        what = f"{call}, {clients:,} clients"
        rate, cpu = costs[DIRECT].ops_per_s, costs[DIRECT].members_cpu
        for mode in modes:
            ours = costs[mode].ops_per_s
            figures = ours / rate, "×", f"{ours:,.0f} and {rate:,.0f} calls/s"
            yield setup.row(f"{what}, calls/s", mode, *figures, at_least=at_least)
        for mode in modes if (call, clients) == ("get", FEW) else ():
            figures = costs[mode].proxy_cpu, " s", "for 100,000 gets"
            yield setup.row(f"{what}, proxy's CPU", mode, *figures, at_most=setup.proxy_cpu)
        for mode in modes if (call, clients) == ("get", MANY) else ():
            ours = costs[mode].members_cpu
            figures = ours / cpu, "×", f"{ours:.1f} and {cpu:.1f} s for 100,000 gets"
            yield setup.row(f"{what}, members' CPU", mode, *figures, at_most=setup.members_cpu)


def memory(setup, ways):
    for mode, proxy in ways.proxies.items():
        peak = proxy.process.memory_mb("VmHWM")
        what = f"peak memory with {FEW} clients"
        yield setup.row(what, mode, peak, " MB", "VmHWM", at_most=5)
    proxy = ways.proxies[NATIVE]
    with idle_connections(proxy):
        used = proxy.process.memory_mb("VmRSS")
    what = f"memory with {CONNECTIONS:,} idle connections"
    yield setup.row(what, NATIVE, used, " MB", "VmRSS", at_most=7)


@contextlib.contextmanager
def idle_connections(proxy):
    """As many as CONNECTIONS. The first frames of HTTP/2 have passed both ways on each."""
    host, port = proxy.address.split(":")
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((host, port), 30))
            for _ in range(CONNECTIONS)
        ]
        for client in clients:
            client.sendall(HTTP2_START)
        for client in clients:
            if len(client.recv(FRAME_HEAD, socket.MSG_WAITALL)) < FRAME_HEAD:
                raise RuntimeError("the proxy has closed a connection")
        yield


def droplet_part(binary, work):
    parts = Staging(binary, work)
    parts.deps.mkdir()
    output(*parts.supply, env=ENV | {"BP_ETCDPROXY_MODE": NATIVE})
    output(*parts.pack)
    return bytes_row(f"droplet part, {NATIVE}", parts.archive, 2.2)


def measure(programs, work):
    for number, setup in enumerate((PLAIN, TLS, GRPC_PORT)):
        with Lab(programs, work / f"cluster-{number}") as lab:
            ways = setup.ways(lab)
            if setup is PLAIN:
                yield from one_client(setup, ways)
            yield from many_clients(setup, ways, FEW, tuple(ways.proxies))
            # Before more clients come.
            if not setup.http_port:
                yield from memory(setup, ways)
            yield from many_clients(setup, ways, MANY, (NATIVE,))
            yield from many_clients(setup, ways, MOST, (NATIVE,))
    yield droplet_part(programs.binary, work)


# The document

HEADING_START = "## Throughput and memory: "
HEADING = f"{HEADING_START}etcd's proxy, mode native, no proxy"

SECTION = """\
{heading}

Three real etcd members, the ways to them and the client run on this one
machine, on loopback. The members' data is in {place}: waiting
for a disk makes all ways look more alike. The load average was {load} at the
start. The client is the Rust crate etcd-client. Each of its callers has its own
connection and puts (256 bytes, its own key) or gets (linearizable) without a
pause: 1 s to warm up, then {seconds} s that count. The ways take turns, and each
figure is the median of {rounds} turns.

- **direct**: each client has the address of one member. The clients are spread
  over the three members, and a follower asks the leader before it answers a
  get. A single client has another member in each turn. **leader**: the client
  has the leader's address. **{native}** and **grpc-proxy**: `etcdproxy run` with
  that `--mode` and the addresses of all three members. The client has the
  proxy's address, and speaks plaintext to it.
- **plain**, **TLS**: what the members take. Over TLS the direct client speaks
  TLS itself. **TLS and a gRPC port**: the members have
  `--listen-client-http-urls` too, so that HTTP has another port, and gRPC is
  served by a faster server.
- **p50 added**: the median time of one client's calls, minus the same on the
  other way. A turn counts {single_seconds} s.
- **calls/s**: the calls of all clients together, divided by those of direct.
- **proxy's CPU**: the CPU time that the proxy's process used in the whole turn,
  divided by all gets of that turn, for 100,000 of them. **members' CPU**: the
  same of all three members together, divided by that of direct. Both include
  the opening of the connections.
- **peak memory**: VmHWM of the proxy's process after the turns with up to
  {few} clients. **memory with {connections:,} idle connections**: VmRSS after that,
  while they are open. The first frames of HTTP/2 have passed both ways on each.
- **droplet part**: the size of a `tar -cz` of all files that `etcdproxy supply`
  writes with BP_ETCDPROXY_MODE={native}. There is no etcd among them.

MB are 1,000,000 bytes. Only mode native has targets.

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
        single_seconds=SINGLE_SECONDS,
        rounds=ROUNDS,
        native=NATIVE,
        few=FEW,
        connections=CONNECTIONS,
        table=table(MEASURED, measure(programs, work)),
    )


def replace_section(path, text):
    """Put the text in the place of the old section, whatever its title was, or at the end."""
    document = path.read_text() if path.exists() else ""
    old = re.search(rf"^{re.escape(HEADING_START)}.*?(?=^## |^<!-- |\Z)", document, re.M | re.S)
    if old:
        before, after = document[:old.start()], document[old.end():]
        path.write_text(f"{before}{text}\n{after}" if after else f"{before}{text}")
    else:
        path.write_text(f"{document}\n{text}")


def main():
    binary, client, work, path = (Path(arg).absolute() for arg in sys.argv[1:])
    exit_on_signals()
    allow_open_files(2 * max(CONNECTIONS, MOST) + 1000)
    with scratch(work) as directory:
        text = section(Programs(binary, client), Path(directory))
    replace_section(path, text)
    print(text[text.index("| what"):], end="")


if __name__ == "__main__":
    main()
