"""What many watchers and leases cost, and what they see when a member fails: `scripts/bench.sh watches`.

usage: watches.py BINARY CLIENT SCRATCH_DIR DOCUMENT

Writes its part of the document. ETCDPROXY_BENCH_ROUNDS=1 makes it short and rough.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from lib.lab import Lab, Programs
from lib.members import three_members
from lib.processes import exit_on_signals, output
from lib.proxies import Proxy
from lib.report import MEASURED, circumstances, replace_part, row, table
from lib.room import allow_open_files, scratch
from lib.ways import DIRECT, cpu_seconds

NATIVE = "native"
ROUNDS = int(os.environ.get("ETCDPROXY_BENCH_ROUNDS", "3"))
WATCHERS = 1000
FAULT_PUTS = 500
HUNG_SECONDS = 6
LEASES, LEASE_CLIENTS, TTL = 10_000, 100, 10
AFTER_DEATH_SECONDS = 3 * TTL


class Client:
    """A command of the example client that prints a line when all is open, and a report at its end."""

    def __init__(self, lab, *argv, seconds=180):
        self.process = lab.start("client", lab.programs.client, *argv, stdin=subprocess.PIPE)
        self.lines(1, seconds)

    def lines(self, count, seconds):
        deadline = time.monotonic() + seconds
        while len(found := self.process.text().splitlines()) < count:
            if self.process.ended() or time.monotonic() > deadline:
                raise RuntimeError(f"the client has ended, or is late: {found}")
            time.sleep(0.05)
        return found

    def go_on(self):
        """For `watchers`: the puts begin."""
        self.process.popen.stdin.write(b"\n")
        self.process.popen.stdin.flush()

    def report(self, seconds=180) -> dict:
        self.process.popen.stdin.close()
        report = json.loads(self.lines(2, seconds)[1])
        self.process.expect_exit(0, seconds)
        return report


class Place:
    """A new cluster, and the way to it."""

    def __init__(self, lab, way, *flags):
        self.cluster = three_members(lab).start()
        self.members = [member.process for member in self.cluster.members]
        self.proxy = None
        self.address = self.cluster.endpoints
        if way == NATIVE:
            self.proxy = Proxy(lab, self.cluster.endpoints, "--mode", NATIVE, *flags)
            self.address = self.proxy.url

    def watchers(self):
        """How many each member has."""
        return [gauge(member, "etcd_debugging_mvcc_watcher_total") for member in self.cluster.members]

    def memory(self):
        return sum(member.memory_mb("VmRSS") for member in self.members)

    def cpu(self):
        return cpu_seconds(([self.proxy.process] if self.proxy else [], self.members))


def gauge(member, name):
    return float(re.search(rf"^{name} (\S+)$", member.metrics(), re.M)[1])


class Cost(NamedTuple):
    proxy_cpu: float
    members_cpu: float
    p50_ms: float
    p99_ms: float
    watchers: float
    members_mb: float
    proxy_mb: float


def cost(programs, work, way, keys, puts) -> Cost:
    with Lab(programs, work) as lab:
        place = Place(lab, way)
        before = place.memory()
        client = Client(
            lab, "watchers", place.address, "--watchers", str(WATCHERS), "--keys", str(keys),
            "--puts", str(puts),
        )
        time.sleep(1)
        grown, watchers = place.memory() - before, sum(place.watchers())
        cpu = place.cpu()
        client.go_on()
        report = client.report()
        cpu = [after - before for after, before in zip(place.cpu(), cpu)]
        check(report)
        peak = place.proxy.process.memory_mb("VmHWM") if place.proxy else 0
        return Cost(*cpu, report["p50_ms"], report["p99_ms"], watchers, grown, peak)


def check(report):
    if report["lost"] or report["broken"] or report["out_of_order"]:
        raise RuntimeError(f"a watch is wrong: {report}")


def costs(programs, work, keys, puts):
    """The median of each way; they take turns."""
    found = {DIRECT: [], NATIVE: []}
    for _ in range(ROUNDS):
        for way, all_of_it in found.items():
            all_of_it.append(cost(programs, work, way, keys, puts))
            print(f"watches.py: {keys} keys: {way}: {all_of_it[-1]}", file=sys.stderr)
    return (Cost(*map(median, zip(*all_of_it))) for all_of_it in found.values())


def one_key(programs, work):
    direct, native = costs(programs, work, 1, 100)
    what = f"{WATCHERS:,} watchers on one key, 100 puts"
    yield row(f"{what}: watchers at the members", native.watchers, "", f"direct {direct.watchers:.0f}", at_most=1)
    detail = f"{native.members_cpu:.2f} and {direct.members_cpu:.2f} s"
    yield row(f"{what}: members' CPU", native.members_cpu / direct.members_cpu, "×", detail, at_most=0.15)
    yield row(f"{what}: proxy's CPU", native.proxy_cpu, " s", "100,000 events", at_most=0.7)
    yield row(f"{what}: proxy's peak memory", native.proxy_mb, " MB", "VmHWM", at_most=6)
    for name in ("p50", "p99"):
        ours, theirs = getattr(native, f"{name}_ms"), getattr(direct, f"{name}_ms")
        yield row(f"{what}: {name} of delivery", ours / theirs, "×", f"{ours:.1f} and {theirs:.1f} ms", at_most=1)


def many_keys(programs, work):
    direct, native = costs(programs, work, WATCHERS, WATCHERS)
    what = f"{WATCHERS:,} watchers on {WATCHERS:,} keys, a put for each"
    detail = f"direct {direct.members_mb:.1f} MB; {native.watchers:.0f} watchers at the members"
    yield row(f"{what}: members' memory, growth", native.members_mb, " MB", detail, at_most=6)
    yield row(f"{what}: proxy's peak memory", native.proxy_mb, " MB", "VmHWM", at_most=8)


def fault(programs, work, sign, leads, limit):
    """The member that has the watchers fails in the middle of the puts. `leads`: it is the leader."""
    gaps = []
    for _ in range(ROUNDS):
        with Lab(programs, work) as lab:
            place = Place(lab, NATIVE, "--prefer", "leader" if leads else "spread")
            client = Client(
                lab, "watchers", place.address, "--watchers", str(WATCHERS), "--keys", "1",
                "--puts", str(FAULT_PUTS),
            )
            has = place.watchers()
            number = has.index(max(has))
            victim = place.members[number]
            leader = number if leads else (number + 1) % len(has)
            output(programs.client, "make-leader", str(leader + 1), place.cluster.endpoints)
            client.go_on()
            time.sleep(3)
            victim.popen.send_signal(sign)
            if sign == signal.SIGSTOP:
                time.sleep(HUNG_SECONDS)
                victim.popen.send_signal(signal.SIGCONT)
            report = client.report()
            print(f"watches.py: {sign.name}: {report}", file=sys.stderr)
            check(report)
            gaps.append(report["longest_gap"])
    detail = f"the longest of {WATCHERS:,} watchers, worst of {ROUNDS} runs; none broken, no event lost"
    role = "leads" if leads else "follows"
    return row(f"{sign.name} of the watchers' member, which {role}: gap", max(gaps), " s", detail, at_most=limit)


def leases(programs, work):
    with Lab(programs, work) as lab:
        place = Place(lab, NATIVE)
        client = Client(
            lab, "leases", place.address, "--leases", str(LEASES), "--clients",
            str(LEASE_CLIENTS), "--ttl", str(TTL), seconds=300,
        )
        time.sleep(TTL / 2)
        number = int(output(programs.client, "leader", place.cluster.endpoints))
        place.members[number - 1].kill()
        time.sleep(AFTER_DEATH_SECONDS)
        report = client.report()
        print(f"watches.py: leases: {report}", file=sys.stderr)
        detail = f"{report['broken']} streams broken, {report['keepalives']:,} keepalives answered"
        what = f"{LEASES:,} leases of {TTL} s from {LEASE_CLIENTS} clients, the leader dies: expired"
        return row(what, report["expired"], "", detail, at_most=0)


TEXT = """\
## Watches and leases

Measured on {date} on {cores} cores of {cpu}, with three real members on this
machine, their data in {file_system}. Each watcher is a client with a connection
of its own. **direct**: the clients are spread over the members. **native**:
`etcdproxy run --mode native`. Each figure is the median of {rounds} runs, each
with a new cluster; CPU is that from the first put to the last event. Memory of
the members is VmRSS of all three together. A put every 20 ms.

{table}
"""


def measure(programs, work):
    yield from one_key(programs, work)
    yield from many_keys(programs, work)
    yield fault(programs, work, signal.SIGKILL, False, 0.2)
    yield fault(programs, work, signal.SIGKILL, True, 2.1)
    yield fault(programs, work, signal.SIGSTOP, False, 2.6)
    yield fault(programs, work, signal.SIGSTOP, True, 2.6)
    yield leases(programs, work)


def main():
    binary, client, work, path = (Path(arg).absolute() for arg in sys.argv[1:])
    exit_on_signals()
    allow_open_files(10 * WATCHERS)
    with scratch(work) as directory:
        place = Path(directory)
        rows = table(MEASURED, measure(Programs(binary, client), place / "lab"))
        text = TEXT.format(rounds=ROUNDS, table=rows, **circumstances(place))
    replace_part(path, "watches", text)
    print(rows)


if __name__ == "__main__":
    main()
