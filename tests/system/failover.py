"""What applications with other people's client libraries see when members fail.

`measure` runs small applications (tests/system/failover/), one after the other,
while one member of a new cluster of three dies or hangs, and comes back. With
words, --ways or --faults, it measures only these, and leaves the document as it
is; with --write and --ways, it replaces the tables of these ways. `prepare`
installs the libraries as scripts/suites.sh does, and needs the network. Exits
with 1 if native missed its target.
"""

import argparse
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple, Union

import suites
from lib import gateway
from lib.cases import matching
from lib.faults import watch_messages
from lib.lab import Lab, Programs
from lib.members import three_members
from lib.processes import ENV, exit_on_signals, output
from lib.proxies import Proxy
from lib.report import circumstances, marked_part, replace_part, table
from lib.seen import Seen, evaluate, lines, worst

APPLICATIONS = Path(__file__).parent / "failover"
PREFIX = "failover/"

READY_SECONDS = 15
READY_COUNT = 20  # calls of each kind, and events, before the fault
SETTLE_SECONDS = 2  # after a move of the leadership
RETURN_SECONDS = 5  # after a kill
HANG_SECONDS = 15
AFTER_SECONDS = 5  # with the member back
RUNS = 3


class Library(NamedTuple):
    """`suite` is its name in suites.py; `command` gets the suite's directory."""

    name: str
    file: str
    suite: str = ""
    takes_list: bool = False
    speaks_json: bool = False
    hides_the_end: bool = False  # of a watch

    @property
    def source(self):
        """Its suite, or None."""
        return next((suite for suite in suites.SUITES if suite.name == self.suite), None)

    @property
    def title(self):
        return f"{self.name} {self.source.version}" if self.source else self.name

    def command(self, cache, rust):
        """The program with its first arguments, and its environment."""
        path, env = APPLICATIONS / self.file, ENV
        place = suites.place(cache, self.source) if self.source else None
        if path.suffix == ".py":
            return [place / "venv/bin/python" if place else sys.executable, "-B", path], env
        if path.suffix == ".js":
            return ["node", path], env | {"FAILOVER_LIBRARY": str(place / "source")}
        if path.suffix == ".rb":
            return ["/usr/bin/ruby", "-I", place / "source/lib", path], env
        return [rust], env

    def installed(self, cache):
        if not self.source or self.is_rust:
            return True
        return (suites.place(cache, self.source) / "ready").exists()

    @property
    def is_rust(self):
        """Cargo builds it, from Cargo.lock."""
        return self.file.endswith(".rs")


LIBRARIES = [
    Library("python etcd3", "python_etcd3.py", "python etcd3"),
    Library("aetcd", "aetcd_.py", "aetcd"),
    Library("etcetra", "etcetra_.py", "etcetra"),
    Library("etcd3gw", "etcd3gw_.py", "etcd3gw", speaks_json=True, hides_the_end=True),
    Library("JSON without library", "json_.py", speaks_json=True),
    Library("node etcd3", "node_etcd3.js", "node etcd3", takes_list=True),
    Library("ruby etcdv3", "ruby_etcdv3.rb", "ruby etcdv3", takes_list=True),
    Library("etcd-client", "etcd_client.rs", "etcd-client", takes_list=True),
]

WAYS = {
    "direct": None,
    "grpc-proxy": ("--mode", "grpc-proxy"),
    # Lines in JSON have the time.
    "native": ("--mode", "native", "--log-format", "json"),
}


class Fault(NamedTuple):
    name: str
    leader: bool
    kills: bool
    limit: float  # seconds: native's longest gap of calls, and delay of events


FAULTS = [
    Fault("kill -9 a follower", False, True, 0.3),
    Fault("kill -9 the leader", True, True, 2.1),
    Fault("SIGSTOP a follower", False, False, 2.6),
    Fault("SIGSTOP the leader", True, False, 2.6),
]


def wait_ready(process) -> str:
    """Returns why the application does not run well, or nothing."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and not process.ended():
        seen = [what.split()[0] for _, what in lines(process) if not re.search("failed|told", what)]
        lacks = [kind for kind in ("put", "get", "event") if seen.count(kind) < READY_COUNT]
        if not lacks:
            return ""
        time.sleep(0.1)
    return "" if lacks == ["event"] and not process.ended() else "does not work"


def range_calls(member) -> int:
    found = re.search(r'^grpc_server_started_total\{.*"Range".*\} (\S+)$', member.metrics(), re.M)
    return float(found[1]) if found else 0


def carrier(cluster):
    """The member that carries the watch, or without any watch the gets."""
    return max(cluster.members, key=lambda member: (watch_messages(member), range_calls(member)))


def harm(cluster, fault):
    """Returns the time of the fault, when the member has been back for some seconds."""
    victim = carrier(cluster)
    other = next(member for member in cluster.members if member is not victim)
    gateway.make_leader(cluster, victim if fault.leader else other)
    time.sleep(SETTLE_SECONDS)
    since = time.time()
    print(f"{since:.3f} {fault.name}: {victim.name}", file=cluster.log, flush=True)
    if fault.kills:
        victim.kill()
        time.sleep(RETURN_SECONDS)
        victim.start()
    else:
        victim.process.popen.send_signal(signal.SIGSTOP)
        time.sleep(HANG_SECONDS)
        victim.process.popen.send_signal(signal.SIGCONT)
    print(f"{time.time():.3f} {victim.name} is back", file=cluster.log, flush=True)
    time.sleep(AFTER_SECONDS)
    return since


def run(options, library, way, fault, path):
    """Returns `Seen`, or why the library does not work on this way."""
    with Lab(Programs(options.binary, None), path) as lab:
        try:
            return run_in(lab, options, library, way, fault)
        finally:
            if options.keep:
                name = f"{library.name} {way} {fault.name} {path.name}".replace(" ", "-")
                kept = options.keep / name
                kept.mkdir(parents=True, exist_ok=True)
                for log in lab.work.glob("*.log"):
                    shutil.copy(log, kept)


def run_in(lab, options, library, way, fault) -> Union[Seen, str]:
    cluster = three_members(lab).start()
    cluster.log = (lab.work / "driver.log").open("w")
    flags = WAYS[way]
    if flags is None:
        taken = cluster.members if library.takes_list else cluster.members[:1]
        addresses = ",".join(member.address for member in taken)
    else:
        # Native follows the leader, so that the death of a follower would be nothing to it.
        spread = ("--prefer", "spread") if way == "native" and not fault.leader else ()
        addresses = Proxy(lab, cluster.endpoints, *flags, *spread).address
    writer = gateway.Writer(cluster, f"{PREFIX}watched")
    argv, env = library.command(options.cache, options.rust)
    application = lab.start("application", *argv, addresses, PREFIX, env=env)
    problem = wait_ready(application)
    if problem:
        return problem
    since = harm(cluster, fault)
    until = time.time()
    writer.stop()
    time.sleep(0.5)
    seen = lines(application)
    lease = next((what.split()[1] for _, what in seen if re.fullmatch(r"lease -?\d+", what)), None)
    kept = lease and gateway.has_lease(cluster, lease)
    application.kill()
    return evaluate(seen, writer.acknowledged, since, until, kept)


def say(text):
    print(text, file=sys.stderr, flush=True)


def measure_cell(options, library, way, fault, path):
    """Once; through native again if the target was missed."""
    runs = []
    while True:
        found = run(options, library, way, fault, path.with_name(f"{path.name}-{len(runs)}"))
        say(f"failover.py: {library.name}, {way}, {fault.name}: {found}")
        if isinstance(found, str):
            return found
        for text in sorted(set(found.whys))[:5]:
            say(f"    {found.whys.count(text)} times {text}")
        runs.append(found)
        again = way == "native" and worst(runs).missed(fault, library)
        if not again or len(runs) == RUNS:
            return worst(runs)


PART = """\
## Real client libraries

`./scripts/failover.sh` wrote this part on {date}, with {version}.

Machine: {cores} cores of {cpu}, Linux {kernel}, file system {file_system},
load average {load} at the start.

A small application with each library puts and gets every 50 ms, with a deadline
of 5 s for a call, watches a key that somebody else writes every 50 ms, and keeps
a lease of 5 s alive as the library offers it. It opens no watch again. Then a
member is killed (kill -9) and starts again after {back} s, or stops (SIGSTOP) and
goes on after {hang} s. The member is the one that carries the application's
watch; in half of the columns it leads the cluster, in the others it does not.
Native goes to the leader, where a follower's death is nothing to it; in the
columns of a follower it ran with `--prefer spread`.

A cell says, for gets and then for puts, how many calls failed, and the longest
time without a success in seconds; then what became of the watch: **ok** and the
longest time from an acknowledged put to its event, in seconds; **told**: no more
events, but the application got an error or an end; **DEAD**: no more events, and
nobody told it; how many events were lost or doubled. If the lease was lost, or
keepalives failed, it says that too.

"direct" is the list of members where a library takes one (node etcd3, ruby
etcdv3, etcd-client), otherwise one member. "JSON without library" uses
Python's own HTTP, to see what etcd3gw is told: this library does not pass the
end of a watch on to the application.

Target of native: no failed get, at most one failed put, no gap or delay over
0.3 s (follower killed), 2.1 s (leader killed: the election takes that) or 2.6 s
(stopped), and the watch and the lease go on. With JSON, which native passes on
byte for byte, one get may fail too, and a watch may end if the application is
told. A cell that missed it was measured {runs} times, because
the machine is shared: then it shows the median of the times, and the worst of
everything else.

A leader that hangs and wakes up again may revoke leases that clients have kept
alive at the new leader meanwhile, before it hears that it leads no more. etcd
has made that rare (pull request 16822), not impossible, and no proxy can
prevent it.

{tables}"""


def table_of(cells, way, faults):
    rows = [
        (library.title, *(cells[library.name, way, fault.name] for fault in faults))
        for library in LIBRARIES if (library.name, way, faults[0].name) in cells
    ]
    title = "Direct:" if way == "direct" else f"Through {way}:"
    text = f"{title}\n\n{table(('library', *(fault.name for fault in faults)), rows)}\n"
    return f"{text}\n{verdict(cells)}\n" if way == "native" else text


def verdict(cells):
    misses = missed(cells)
    if misses:
        return "\n".join(("Native missed its target here:", "", *misses))
    return "Native met its target everywhere."


def missed(cells):
    found = []
    for (name, way, fault_name), cell in cells.items():
        if way == "native":
            library = next(library for library in LIBRARIES if library.name == name)
            fault = next(fault for fault in FAULTS if fault.name == fault_name)
            problems = [cell] if isinstance(cell, str) else cell.missed(fault, library)
            if problems:
                found.append(f"- {name}, {fault_name}: {', '.join(problems)}")
    return found


def main():
    def path(text):
        return Path(text).absolute()
    def listed(text):
        return text.split(",")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, prog="failover.sh",
    )
    parser.add_argument("verb", choices=("prepare", "measure"), help=argparse.SUPPRESS)
    for name in ("binary", "rust", "cache", "scratch", "document"):
        parser.add_argument(name, type=path, help=argparse.SUPPRESS)
    parser.add_argument("--ways", type=listed, help="some of: direct,grpc-proxy,native")
    parser.add_argument("--faults", type=listed, help="words in their names: kill,leader")
    parser.add_argument("--write", action="store_true", help="replace the tables of these ways")
    parser.add_argument("--keep", type=path, help="directory for logs")
    parser.add_argument("words", nargs="*", help="words in the names of libraries")
    options = parser.parse_intermixed_args()
    exit_on_signals()
    names = matching([library.name for library in LIBRARIES], options.words)
    libraries = [library for library in LIBRARIES if library.name in names]
    if options.verb == "prepare":
        used = [library.source for library in libraries if not library.is_rust]
        suites.prepare(options.cache, [suite for suite in used if suite])
        return
    fault_names = matching([fault.name for fault in FAULTS], options.faults)
    faults = [fault for fault in FAULTS if fault.name in fault_names]
    ways = [way for way in WAYS if way in (options.ways or WAYS)]
    facts = circumstances(options.scratch)
    facts["version"] = output(options.binary, "version").splitlines()[0]
    cells = {}
    for library in libraries:
        for way in ways:
            for number, fault in enumerate(faults):
                if not library.installed(options.cache):
                    cell = "SKIPPED"
                elif number and isinstance(cell, str):
                    pass  # what does not work with the first fault does not with the next
                else:
                    place = options.scratch / f"run-{len(cells)}"
                    cell = measure_cell(options, library, way, fault, place)
                cells[library.name, way, fault.name] = cell
    tables = {way: table_of(cells, way, faults) for way in ways}
    if not (options.words or options.faults):
        write(options, tables, facts)
    print("\n".join(tables.values()))
    sys.exit(bool(missed(cells)))


def write(options, tables, facts):
    """With all ways, the whole part; else tables that are there, if that is wanted."""
    if not options.ways:
        marked = (marked_part(f"failover {way}", text) for way, text in tables.items())
        replace_part(options.document, "failover", PART.format(
            tables="\n".join(marked), back=RETURN_SECONDS, hang=HANG_SECONDS, runs=RUNS, **facts,
        ))
    elif options.write:
        for way, text in tables.items():
            replace_part(options.document, f"failover {way}", text)


if __name__ == "__main__":
    main()
