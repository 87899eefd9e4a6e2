"""What an application sees when members fail: the measurements of scripts/chaos.sh.

usage: chaos.py BINARY CLIENT SCRATCH_DIR DOCUMENT [WORD...]

With words, it measures only the rows with one of them in their names, and
leaves the document as it is. Exits with 1 if something was lost.
"""

import itertools
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Optional

from lib import faults
from lib.cases import matching
from lib.lab import Lab, Programs
from lib.load import KINDS, LOSSES, SETTLE_SECONDS, Load
from lib.members import NUMBERS, Cluster, Member
from lib.processes import exit_on_signals, output
from lib.proxies import Proxy
from lib.report import circumstances, docs, part_of, table

COOL_DOWN_SECONDS = 5


class Way(NamedTuple):
    """A way from an application to the cluster."""

    name: str
    flags: Optional[tuple]  # of `etcdproxy run`; None: no sidecar
    about: str


WAYS = [
    Way("grpc-proxy", (), "`etcdproxy run`, which becomes etcd's proxy"),
    Way(
        "native",
        ("--mode", "native"),
        "`etcdproxy run --mode native`. It follows the leadership, so a\n"
        "  follower that fails has served nothing for it",
    ),
    Way("direct", None, "no sidecar; the client has the addresses of all three members"),
]


class Scenario(NamedTuple):
    name: str
    victims: Callable
    fault: Callable
    rounds: int
    limits: dict = {}  # way: seconds
    failures: dict = {}  # way: kind: how many calls may fail


# Native repeats reads. It must not repeat a put whose answer is lost, and one is in flight at most.
ONE_PUT = {"native": {"puts": 1, "gets": 0}}

SCENARIOS = [
    Scenario("nothing", faults.nobody, faults.nothing, 3),
    Scenario(
        "kill -9 a follower", faults.a_follower, faults.kill, 5,
        {"grpc-proxy": 0.2, "native": 0.15}, ONE_PUT,
    ),
    Scenario(
        "kill -9 the leader", faults.the_leader, faults.kill, 5,
        {"grpc-proxy": 3, "native": 2.1}, ONE_PUT,
    ),
    Scenario(
        "SIGSTOP a follower, 25 s", faults.a_follower, faults.hang, 3,
        {"grpc-proxy": 13.5, "native": 2.6}, ONE_PUT,
    ),
    Scenario(
        "SIGSTOP the leader, 25 s", faults.the_leader, faults.hang, 3,
        {"grpc-proxy": 13.5, "native": 2.6}, ONE_PUT,
    ),
    Scenario(
        "a member cut off, 12 s", faults.a_follower, faults.cut_off, 3,
        {"native": 2.6}, ONE_PUT,
    ),
    Scenario(
        "all members down, 10 s", faults.everybody, faults.take_down, 5,
        {"grpc-proxy": 8, "native": 1},
    ),
]


class Run(NamedTuple):
    gaps: dict  # kind: seconds
    failed: dict  # kind: calls
    resumed: int
    losses: dict

    @property
    def longest(self):
        return max(self.gaps.values())

    def __str__(self):
        gaps = ", ".join(f"{kind} {s:.2f} s" for kind, s in self.gaps.items())
        losses = ", ".join(f"{loss} {n}" for loss, n in self.losses.items())
        return f"{gaps}, {sum(self.failed.values())} failed, {self.resumed} resumed, {losses}"


def longest_gap(successes, since, ended):
    """In seconds, counted from `since`."""
    times = [0, *successes, ended]
    return max(
        end - max(begin, since) for begin, end in itertools.pairwise(times) if end > since
    )


def run(way, scenario, lab) -> Run:
    cluster = separable_cluster(lab).start()
    has_sidecar = way.flags is not None
    address = Proxy(lab, cluster.endpoints, *way.flags).url if has_sidecar else cluster.endpoints
    load = Load(lab, address)
    load.settle()
    victims = scenario.victims(lab.programs.client, cluster)
    load.settle()
    since = scenario.fault(victims)
    # If the load does not run again, the report has a gap up to the end.
    load.runs_for(COOL_DOWN_SECONDS)
    report = load.stop()
    since -= report["started"]
    return Run(
        gaps={
            kind: longest_gap(report[kind]["successes"], since, report["ended"]) for kind in KINDS
        },
        failed={kind: report[kind]["failed"] for kind in KINDS},
        resumed=report["watch_resumed"],
        losses={loss: report[loss] for loss in LOSSES},
    )


def separable_cluster(lab) -> Cluster:
    """Three members that `faults.cut_off` can separate from their peers.

    A member sends to its peers from the address that they know it by. With
    this feature gate etcd rejects loopback addresses, so scripts/chaos.sh adds
    these ones to the interface lo.
    """
    flags = ("--feature-gates=SetMemberLocalAddr=true",)
    return Cluster([
        Member(lab, number, peer_host=f"10.0.0.{number}", flags=flags) for number in NUMBERS
    ])


class Row(NamedTuple):
    scenario: Scenario
    way: Way
    runs: list

    @property
    def name(self):
        return f"{self.scenario.name}, {self.way.name}"

    @property
    def limit(self):
        return self.scenario.limits.get(self.way.name)

    @property
    def allowed_failures(self):
        return self.scenario.failures.get(self.way.name, {})

    def worst(self, kind):
        return f"{max(run.gaps[kind] for run in self.runs):.2f} s"

    def most_failed(self):
        return max(sum(run.failed.values()) for run in self.runs)

    def most_resumed(self):
        return max(run.resumed for run in self.runs)

    def lost(self, loss):
        return sum(run.losses[loss] for run in self.runs)

    def target(self):
        if self.limit is None:
            return "–"
        calls = [failed(count, kind) for kind, count in self.allowed_failures.items()]
        return f"at most {', '.join([f'{self.limit:g} s', *calls])}"

    def verdict(self):
        if self.limit is None:
            return "–"
        excess = max(run.longest for run in self.runs) - self.limit
        missed = [f"by {max(excess, 0.01):.2f} s"] if excess > 0 else []
        for kind, allowed in self.allowed_failures.items():
            most = max(run.failed[kind] for run in self.runs)
            if most > allowed:
                missed.append(failed(most, kind))
        if any(map(self.lost, LOSSES)):
            missed.append("something was lost")
        return f"missed: {', '.join(missed)}" if missed else "met"

    def cells(self):
        return (
            self.scenario.name, self.way.name, *map(self.worst, KINDS),
            ", ".join(f"{run.longest:.2f}" for run in self.runs),
            self.most_failed(), self.most_resumed(), *map(self.lost, LOSSES),
            self.target(), self.verdict(),
        )

    def sentences(self):
        put, get, event = map(self.worst, KINDS)
        waited = f"waited at most {put} for a put, {get} for a get and {event} for an event"
        restarted = self.scenario.fault is faults.take_down
        yield f"{'after the restart, ' if restarted else ''}the application {waited}"
        calls, attempts = plural(self.most_failed(), "call"), plural(self.most_resumed(), "attempt")
        yield f"At most {calls} failed in a run" if self.most_failed() else "No call failed"
        broke = f"The watch broke: at most {attempts} in a run to open it again"
        yield broke if self.most_resumed() else "The watch did not break"
        sums = {loss.replace("_", " "): self.lost(loss) for loss in LOSSES}
        lost = ", ".join(f"{loss}: {count}" for loss, count in sums.items() if count)
        yield f"In all runs together, {lost}" if lost else "Nothing was lost"

    def in_words(self):
        text = f"- **{self.name}**: {'. '.join(self.sentences())}."
        return textwrap.fill(text, 79, subsequent_indent="  ")


def failed(count, kind):
    return plural(count, f"failed {kind.removesuffix('s')}")


def plural(count, noun):
    return f"{count} {noun}{'' if count == 1 else 's'}"


def select(words):
    rows = [Row(scenario, way, []) for scenario in SCENARIOS for way in WAYS]
    names = matching([row.name for row in rows], words)
    return [row for row in rows if row.name in names]


def measure(programs, scratch, rows):
    """Run all rows. They take turns, so that other load affects them all alike."""
    numbers = itertools.count()
    for turn in range(max(row.scenario.rounds for row in rows)):
        for row in rows:
            if turn < row.scenario.rounds:
                with Lab(programs, scratch / f"run-{next(numbers)}") as lab:
                    row.runs.append(run(row.way, row.scenario, lab))
                print(f"chaos.py: {row.name}: {row.runs[-1]}", file=sys.stderr)


HEADER = (
    "what happens", "way", "longest gap: put", "get", "watch", "each run, s", "failed calls",
    "watch resumed", "lost writes", "lost events", "stale reads", "target", "met",
)

DOCUMENT = """\
# Reliability

`./scripts/chaos.sh` wrote this on {date}. Run it to measure your machine.

Machine: {cores} cores of {cpu}, Linux {kernel}, file system {file_system},
load average {load} at the start. Versions: {version}; the client
is the Rust crate etcd-client {client_version}.

Three real etcd members, the sidecar and the client run on this one machine.
The members have etcd's default settings and real fsync. Every 20 ms the client
puts a new key, and gets (linearizable) the last key whose put was
acknowledged. One watch reports all puts to it. One task makes all puts,
another all gets, each with a deadline of 2 s. No call is repeated. A slow call
delays the next one; the client does not make up for missed turns.

Each run has a new cluster. When the load runs well, one thing happens to the
cluster. The run ends when all three kinds have succeeded again for {cool_down} s.
If the victim is one member, it is the one that serves the watch: that is the
worst case. The leadership moves to it, or away from it, {settle} s before.

- **longest gap**: the longest time between two successes of one kind: puts
  acknowledged, gets answered, events received. It is the gap of the worst run.
  A gap that lasts until the end of the run counts. "Each run" shows the
  longest gap of the three kinds in each run; the target applies to the worst.
- **failed calls**: puts and gets that failed or had no answer within 2 s, in
  the worst run. **watch resumed**: attempts to open the watch again, in the
  worst run.
- **lost writes**: acknowledged puts that were missing at the end.
  **lost events**: acknowledged puts that the watch had not shown 15 s after
  the last put. **stale reads**: gets that did not find a key whose put had
  been acknowledged before. All three are sums over all runs.

Ways to the cluster:

{ways}

What happens to the cluster:

{faults}

{table}

In words:

{in_words}
"""


def facts(programs, scratch):
    """Facts for the document, from before the measurement changes the load average."""
    lock = (Path(__file__).parents[2] / "Cargo.lock").read_text()
    return circumstances(scratch) | {
        "version": output(programs.binary, "version"),
        "client_version": re.search(r'name = "etcd-client"\nversion = "(.*)"', lock)[1],
        "settle": SETTLE_SECONDS,
        "cool_down": COOL_DOWN_SECONDS,
        "ways": "\n".join(f"- **{way.name}**: {way.about}" for way in WAYS),
        "faults": docs(dict.fromkeys(scenario.fault for scenario in SCENARIOS)),
    }


def main():
    binary, client, scratch, path = (Path(arg).absolute() for arg in sys.argv[1:5])
    words = sys.argv[5:]
    exit_on_signals()
    programs = Programs(binary, client)
    rows = select(words)
    start = facts(programs, scratch)
    measure(programs, scratch, rows)
    figures = table(HEADER, [row.cells() for row in rows])
    in_words = "\n".join(row.in_words() for row in rows)
    if not words:
        path.parent.mkdir(exist_ok=True)
        # scripts/failover.sh, scripts/attack.sh and scripts/check.sh have written the rest.
        parts = (part_of(path, name) for name in ("failover", "attack", "check"))
        rest = "\n".join(filter(None, parts))
        text = DOCUMENT.format(table=figures, in_words=in_words, **start)
        path.write_text(f"{text}\n{rest}" if rest else text)
    print(f"{figures}\n\n{in_words}")
    sys.exit(any(row.lost(loss) for row in rows for loss in LOSSES))


if __name__ == "__main__":
    main()
