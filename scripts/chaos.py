"""The failover measurements of scripts/chaos.sh, which calls this with what
it built.

usage: chaos.py BINARY CLIENT SCRATCH_DIR DOCUMENT [WORD...]
"""

import ctypes
import inspect
import itertools
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Optional

from bench import ENV, STOPPING, circumstances, output

CALLS_PER_SECOND = 50  # the client's pace, of each kind
SETTLE_SECONDS = 2
COOL_DOWN_SECONDS = 5
START_SECONDS = 30
PATIENCE_SECONDS = 60  # for the load to run again
STOP_SECONDS = 60
QUIET_SECONDS = 10
HUNG_SECONDS = 25
CUT_SECONDS = 12
CUT = "5"  # preference of the rules; the network has 10 as its first
DOWN_SECONDS = 10
LEAD_SECONDS = 1
KINDS = ("puts", "gets", "events")
LOSSES = ("lost_writes", "lost_events", "stale_reads")


# The ways from an application to the cluster. A new one is one more line.


class Way(NamedTuple):
    name: str
    flags: Optional[tuple]  # of `etcdproxy run`; None: no sidecar
    about: str


WAYS = [
    Way("grpc-proxy", (), "`etcdproxy run`, which becomes etcd's proxy"),
    Way("tunnel", ("--mode", "tunnel"), "`etcdproxy run --mode tunnel`"),
    Way("direct", None, "no sidecar, the client has three addresses"),
]


# What is done to the cluster. Each gives the time from which gaps count; its
# docstring goes into the document.


def leave_alone(_):
    """**nothing**: ten seconds in which nobody does anything: what the
    machine, its disk and etcd do by themselves. No target.
    """
    since = time.time()
    time.sleep(QUIET_SECONDS)
    return since


def kill(victims):
    """**kill -9**: SIGKILL to one member, which stays dead. Without a follower
    the other two go on at once. Without the leader nobody acknowledges a put
    or answers a get until there is a new one; etcd's default settings let the
    election begin after about 1 to 2 s. A put that a follower has passed on to
    the dead leader is not answered: its caller waits for its deadline, 2 s.
    """
    since = time.time() - LEAD_SECONDS
    for member in victims:
        member.kill()
    return since


def hang(victims):
    """**SIGSTOP**: one member stops, and goes on after 25 s (SIGCONT). Its
    connections stay open, so that nobody is told: a call there ends by its
    deadline, a watch there is silent until keepalive finds out, 10 s + 3 s in
    etcd's proxy as `etcdproxy run` starts it. A leader that hangs is replaced
    by election as if it were dead. What its return does is in the gaps, too.
    """
    since = time.time() - LEAD_SECONDS
    for member in victims:
        member.process.send_signal(signal.SIGSTOP)
    time.sleep(HUNG_SECONDS)
    for member in victims:
        member.process.send_signal(signal.SIGCONT)
    return since


def take_down(victims):
    """**all members down**: SIGKILL to all three; after 10 s all three are
    started again, with their data. What counts is the time after their return.
    The clock starts when the start of the first of them begins, so the start
    of etcd, the election and the reconnection are in it, and stops at the
    first success of each kind. A gap after that counts if it is longer. Etcd's
    proxy tries to connect after 1 s, then ever more rarely (gRPC's backoff):
    after 10 s it may have just tried, or be about to, so the runs differ.
    """
    for member in victims:
        member.kill()
    time.sleep(DOWN_SECONDS)
    returned = time.time()
    for member in victims:
        member.start()
    return returned


def cut_off(victims):
    """**cut off**: for 12 s one member, a follower, neither hears its peers
    nor is heard by them; clients still reach it. It cannot answer a put or a
    linearizable get, and its watch is silent.
    """
    since = time.time() - LEAD_SECONDS
    ways = ("from", "to")
    for member in victims:
        for way in ways:
            rule = ("pref", CUT, way, member.peer_host, "blackhole")
            output("ip", "rule", "add", *rule)
    time.sleep(CUT_SECONDS)
    for _ in itertools.product(victims, ways):
        output("ip", "rule", "del", "pref", CUT)
    return since


# Whom it is done to. The watch's member is the worst case.


def nobody(_):
    return []


def a_follower(cluster):
    victim = cluster.watch_carrier()
    cluster.make_leader(next(m for m in cluster.members if m is not victim))
    return [victim]


def the_leader(cluster):
    victim = cluster.watch_carrier()
    cluster.make_leader(victim)
    return [victim]


def everybody(cluster):
    return cluster.members


class Scenario(NamedTuple):
    name: str
    victims: Callable
    harm: Callable
    rounds: int
    limits: dict  # seconds, for the ways that have one
    failures: dict  # how many calls of a kind may fail


SCENARIOS = [
    Scenario("nothing", nobody, leave_alone, 3, {}, {}),
    Scenario(
        "kill -9 a follower", a_follower, kill, 5,
        {"grpc-proxy": 0.2, "tunnel": 0.1}, {},
    ),
    Scenario(
        "kill -9 the leader", the_leader, kill, 5,
        {"grpc-proxy": 3, "tunnel": 3}, {},
    ),
    Scenario(
        "SIGSTOP a follower, 25 s", a_follower, hang, 3,
        {"grpc-proxy": 13.5, "tunnel": 3}, {"tunnel": 2},
    ),
    Scenario(
        "SIGSTOP the leader, 25 s", the_leader, hang, 3,
        {"grpc-proxy": 13.5, "tunnel": 3}, {"tunnel": 2},
    ),
    Scenario(
        "a member cut off, 12 s", a_follower, cut_off, 3, {"tunnel": 3}, {},
    ),
    Scenario(
        "all members down, 10 s", everybody, take_down, 5,
        {"grpc-proxy": 8, "tunnel": 8}, {},
    ),
]


# Processes


class Subject(NamedTuple):
    binary: Path
    client: Path
    work: Path


LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Lab:
    """A directory and processes, which end with it."""

    def __init__(self, subject, number):
        self.subject = subject
        self.work = subject.work / f"run-{number}"
        unpacked = str(subject.work / "unpacked")
        self.env = ENV | {"ETCDPROXY_UNPACK_DIR": unpacked}
        octets = random.randrange(20, 220), random.randrange(256)
        self.host = "127.{}.{}.{}".format(*octets, random.randrange(1, 255))
        self.processes = []

    def __enter__(self):
        self.work.mkdir()
        (self.work / "etcd").symlink_to(self.subject.binary)
        return self

    def __exit__(self, problem, *_):
        for process in self.processes:
            process.kill()
            process.wait()
        if problem and issubclass(problem, Exception):
            for log in sorted(self.work.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()
                print(f"== {log.name}", *lines[-10:], sep="\n", file=sys.stderr)
        shutil.rmtree(self.work)

    def start(self, name, *argv, **options):
        """Its output is added to a file."""
        with open(self.work / f"{name}.log", "ab") as log:
            process = subprocess.Popen(
                argv, env=self.env, stdout=log, stderr=log,
                preexec_fn=die_with_parent, **options,
            )
        self.processes.append(process)
        return process

    def wait_ready(self, address):
        output(
            self.subject.binary, "wait", "--listen-addr", address,
            "--timeout", f"{START_SECONDS}s", env=self.env,
        )


class Member:
    SCHEME = "http"  # of its clients

    def __init__(self, lab, number):
        self.lab = lab
        self.name = f"m{number}"
        # Below the ports that the system gives to clients
        self.address = f"{lab.host}:{20000 + number}"
        self.peer = f"http://{lab.host}:{30000 + number}"
        self.client = f"{self.SCHEME}://{self.address}"
        self.flags = ()
        self.process = None

    def start(self, cluster=None):
        """Without the cluster: again; what it was is in its data."""
        argv = [
            self.lab.work / "etcd", "--name", self.name,
            "--data-dir", self.lab.work / self.name, "--log-level", "error",
            "--listen-client-urls", self.client,
            "--advertise-client-urls", self.client,
            "--listen-peer-urls", self.peer,
            "--initial-advertise-peer-urls", self.peer, *self.flags,
        ]
        if cluster:
            argv += ["--initial-cluster", cluster]
        self.process = self.lab.start(self.name, *argv)

    def wait_ready(self):
        self.lab.wait_ready(self.address)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def watch_messages(self):
        """How many it has sent."""
        url = f"{self.client}/metrics"
        with urllib.request.urlopen(url, timeout=5) as page:
            text = page.read().decode()
        sent = re.search(
            r'^grpc_server_msg_sent_total\{.*"Watch".*\} (\S+)$', text, re.M
        )
        return float(sent[1]) if sent else 0


class Separable(Member):
    """With an address for its peers, to be cut off by: what it sends them
    comes from there. For that etcd takes no loopback address; these are on lo
    all the same.
    """

    def __init__(self, lab, number):
        super().__init__(lab, number)
        self.peer_host = f"10.0.0.{number}"
        self.peer = f"http://{self.peer_host}:{30000 + number}"
        self.flags = ("--feature-gates=SetMemberLocalAddr=true",)


class Cluster:
    """Three members, which answer."""

    def __init__(self, lab, member=Member):
        self.lab = lab
        self.members = [member(lab, number) for number in (1, 2, 3)]
        self.endpoints = ",".join(m.client for m in self.members)
        initial = ",".join(f"{m.name}={m.peer}" for m in self.members)
        for member in self.members:
            member.start(initial)
        for member in self.members:
            member.wait_ready()

    def make_leader(self, member):
        number = str(self.members.index(member) + 1)
        client = self.lab.subject.client
        output(client, "make-leader", number, self.endpoints)

    def watch_carrier(self):
        """The member that has sent the most events."""
        return max(self.members, key=Member.watch_messages)


def open_way(way, lab, cluster):
    """The address, or addresses, for the client."""
    if way.flags is None:
        return cluster.endpoints
    address = f"{lab.host}:2379"
    lab.start(
        "proxy", lab.subject.binary, "run", "--endpoints", cluster.endpoints,
        "--listen-addr", address, *way.flags,
    )
    lab.wait_ready(address)
    return f"http://{address}"


class Load:
    """The client, which calls and watches until `stop`."""

    def __init__(self, lab, address):
        argv = (lab.subject.client, "load", "--json", address)
        self.process = lab.start("client", *argv, stdin=subprocess.PIPE)
        self.log = lab.work / "client.log"

    def last_line(self):
        *lines, _ = self.log.read_text().split("\n")
        return json.loads(lines[-1]) if lines else dict.fromkeys(KINDS, 0)

    def goes_on(self, seconds):
        """Whether, soon, each kind is done as often as in so many seconds."""
        before = self.last_line()
        enough = CALLS_PER_SECOND * seconds
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError("the client has ended")
            now = self.last_line()
            if all(now[kind] - before[kind] >= enough for kind in KINDS):
                return True
            time.sleep(0.05)
        return False

    def settles(self):
        if not self.goes_on(SETTLE_SECONDS):
            raise RuntimeError("the load does not run well on a sound cluster")

    def stop(self):
        """The report."""
        self.process.stdin.close()
        self.process.wait(STOP_SECONDS)
        report = self.last_line()
        if "ended" not in report:
            raise RuntimeError("the client could not read back what it wrote")
        return report


# Measuring


class Run(NamedTuple):
    gaps: dict  # seconds, of each kind
    failed: dict  # calls, of each kind
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
    """In seconds. What lies before `since` is cut off."""
    times = [0, *successes, ended]
    return max(
        end - max(begin, since)
        for begin, end in zip(times, times[1:]) if end > since
    )


def run(way, scenario, lab):
    cluster = Cluster(lab, Separable)
    load = Load(lab, open_way(way, lab, cluster))
    load.settles()
    victims = scenario.victims(cluster)
    load.settles()
    since = scenario.harm(victims)
    # If it does not go on, the report shows a gap up to the end.
    load.goes_on(COOL_DOWN_SECONDS)
    report = load.stop()
    since -= report["started"]
    return Run(
        gaps={
            kind: longest_gap(report[kind]["successes"], since, report["ended"])
            for kind in KINDS
        },
        failed={kind: report[kind]["failed"] for kind in KINDS},
        resumed=report["watch_resumed"],
        losses={loss: report[loss] for loss in LOSSES},
    )


class Row(NamedTuple):
    scenario: Scenario
    way: Way
    runs: list

    @property
    def name(self):
        return f"{self.scenario.name}, {self.way.name}"

    def worst(self, kind):
        return max(run.gaps[kind] for run in self.runs)

    def most_failed(self):
        return max(sum(run.failed.values()) for run in self.runs)

    def most_resumed(self):
        return max(run.resumed for run in self.runs)

    def lost(self, loss):
        return sum(run.losses[loss] for run in self.runs)

    @property
    def limit(self):
        return self.scenario.limits.get(self.way.name)

    def verdict(self):
        if self.limit is None:
            return "–"
        excess = max(run.longest for run in self.runs) - self.limit
        missed = [f"by {max(excess, 0.01):.2f} s"] if excess > 0 else []
        allowed = self.scenario.failures.get(self.way.name)
        failed = max(n for run in self.runs for n in run.failed.values())
        if allowed is not None and failed > allowed:
            missed.append(f"{failed} failed calls of a kind")
        if any(map(self.lost, LOSSES)):
            missed.append("something was lost")
        return f"missed: {', '.join(missed)}" if missed else "met"

    def __str__(self):
        cells = [
            self.scenario.name,
            self.way.name,
            *(f"{self.worst(kind):.2f} s" for kind in KINDS),
            ", ".join(f"{run.longest:.2f}" for run in self.runs),
            self.most_failed(),
            self.most_resumed(),
            *map(self.lost, LOSSES),
            self.target(),
            self.verdict(),
        ]
        return f"| {' | '.join(map(str, cells))} |"

    def target(self):
        if self.limit is None:
            return "–"
        allowed = self.scenario.failures.get(self.way.name)
        calls = f", {allowed} failed calls of each kind" if allowed else ""
        return f"at most {self.limit:.1f} s{calls}"

    def reading(self):
        after = " after the return" if self.scenario.harm is take_down else ""
        put, get, event = (f"{self.worst(kind):.2f} s" for kind in KINDS)
        failed, resumed = self.most_failed(), self.most_resumed()
        lost = [
            f"{loss.replace('_', ' ')}: {self.lost(loss)}"
            for loss in LOSSES if self.lost(loss)
        ]
        sentences = [
            f"the application waited{after} at most {put} for a put, {get} "
            f"for a get and {event} for an event",
            f"Calls that failed: at most {failed} in a run" if failed
            else "No call failed",
            f"The watch broke; attempts to open it again: at most {resumed} "
            "in a run" if resumed else "The watch did not break",
            f"In all runs together, {', '.join(lost)}" if lost
            else "Nothing was lost",
        ]
        return f"- **{self.name}**: {'. '.join(sentences)}."


def select(words):
    """The rows that have one of the words in their names, or all."""
    rows = [Row(scenario, way, []) for scenario in SCENARIOS for way in WAYS]
    return [
        row for row in rows
        if not words or any(word in row.name for word in words)
    ]


def measure(subject, rows):
    """In turns; what else the machine does meets all alike."""
    numbers = itertools.count()
    for turn in range(max(row.scenario.rounds for row in rows)):
        for row in rows:
            if turn < row.scenario.rounds:
                with Lab(subject, next(numbers)) as lab:
                    row.runs.append(run(row.way, row.scenario, lab))
                print(f"chaos.py: {row.name}: {row.runs[-1]}", file=sys.stderr)


DOCUMENT = """\
# Reliability

Written by `./scripts/chaos.sh` on {date}. Run it to measure your machine.

Machine: {cores} cores of {cpu}, Linux {kernel}, file system {file_system},
load average {load} at the start. Versions: {version}; the client
is the Rust crate etcd-client {client_version}.

Three real etcd members with etcd's default settings and real fsync, the
sidecar and the client run on this one machine. Every 20 ms the client puts a
new key, and gets (linearizable) the last key whose put was acknowledged; one
watch shows it all puts. Puts and gets come from one sequential caller each,
with a deadline of 2 s; no call is repeated, and the turns that a slow call
misses are left out. Each run has a new cluster. When the load has run well,
one thing is done to the cluster. The run ends when all three kinds have
succeeded again for {cool_down} s. Where it is one member, it is the one that
serves the watch, which is the worst case: leadership is moved to it, or away
from it, {settle} s before.

- **longest gap**: the longest time between two successes of one kind: puts
  acknowledged, gets answered, events received. It is that of the worst run,
  and includes a gap that has no end. "Each run" is the longest of the three
  kinds in each run; the worst of them is held against the target.
- **failed calls**, **watch resumed**: puts and gets that failed or had no
  answer within 2 s; attempts to open the watch again. Of the worst run.
- **lost writes**: were acknowledged, and were not there at the end.
  **Lost events**: the put was acknowledged, but the watch did not show it, not
  even 15 s after the last put. **Stale reads**: a get did not find what was
  acknowledged before. Of all runs together.

Ways to the cluster:

{ways}

What is done:

{how}

{table}

In words:

{readings}
"""


def document(rows, facts):
    table = [
        "| what is done | way | longest gap: put | get | watch | each run, s "
        "| failed calls | watch resumed | lost writes | lost events "
        "| stale reads | target | met |",
        "|" + "---|" * 13,
        *map(str, rows),
    ]
    harms = dict.fromkeys(scenario.harm for scenario in SCENARIOS)
    return DOCUMENT.format(
        ways="\n".join(f"- **{way.name}**: {way.about}" for way in WAYS),
        how="\n".join(item(inspect.getdoc(harm)) for harm in harms),
        table="\n".join(table),
        readings="\n".join(
            textwrap.fill(row.reading(), 79, subsequent_indent="  ")
            for row in rows
        ),
        **facts,
    )


def item(text):
    return "- " + textwrap.indent(text, "  ")[2:]


def facts(subject):
    lock = Path(__file__).parent.parent / "Cargo.lock"
    client_version = re.search(
        r'name = "etcd-client"\nversion = "(.*)"', lock.read_text()
    )
    return {
        **circumstances(subject.work),
        "version": output(subject.binary, "version"),
        "client_version": client_version[1],
        "settle": SETTLE_SECONDS,
        "cool_down": COOL_DOWN_SECONDS,
    }


def main():
    paths, words = sys.argv[1:5], sys.argv[5:]
    *subject, path = (Path(arg).absolute() for arg in paths)
    for number in STOPPING:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    subject = Subject(*subject)
    rows = select(words)
    if not rows:
        sys.exit(f"chaos.py: no row has one of {words} in its name")
    before = facts(subject)
    measure(subject, rows)
    text = document(rows, before)
    if not words:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    print(text[text.index("| what is done"):], end="")
    sys.exit(any(row.lost(loss) for row in rows for loss in LOSSES))


if __name__ == "__main__":
    main()
