"""Attacks on our own program: the campaign of scripts/attack.sh.

usage: attack.py DOCUMENT [WORD...]

Each row runs tests of tests/it with a large count. They print what they have
counted, and fail if something was lost. With words, it runs only the rows with
one of them in their names, and leaves the document as it is. Exits with 1 if a
row failed.
"""

import os
import re
import sys
import time
from pathlib import Path
from typing import NamedTuple, Optional

from lib.cases import matching
from lib.processes import exit_on_signals, run_bounded
from lib.report import circumstances, replace_part, table

MARKER = "attack"

# No row may take longer. The exit code is timeout(1)'s.
TIMEOUT_SECONDS = 420
TIMED_OUT = 124


class Row(NamedTuple):
    """Tests that belong together."""

    name: str
    about: str
    tests: tuple  # parts of their names
    count: Optional[int] = None  # how many each of them tries


ROWS = [
    Row(
        "short connections",
        "connections that say nothing, half of something, garbage or a greeting, and end",
        ("attack::connections::short_connections",), 100_000,
    ),
    Row(
        "idle connections",
        "connections that are held while calls go on: 3,000 clients, and silent ones",
        ("attack::connections::idle_connections",), 10_000,
    ),
    Row(
        "clients that do not behave",
        "slow senders, silence, half a handshake, TLS, HTTP/1.1 and garbage at the same time",
        ("attack::connections::clients_that",), 2_000,
    ),
    Row(
        "rapid reset", "streams that are opened and reset at once, on one connection and on many",
        ("attack::calls::streams_that_are_reset",), 100_000,
    ),
    Row(
        "header bombs",
        "Huffman codes, CONTINUATION, 60 kB of metadata, the dynamic table, fields of one byte",
        ("attack::calls::header_bombs",), 1_000,
    ),
    Row(
        "window games",
        "windows of nothing and of a byte, floods of settings that change them, overflows",
        ("attack::calls::window_games",), 1_000,
    ),
    Row(
        "floods of frames",
        "PING, SETTINGS, PRIORITY, DATA, GOAWAY, WINDOW_UPDATE, RST_STREAM and unknown ones",
        ("attack::calls::floods",), 200_000,
    ),
    Row(
        "slow readers and writers",
        "answers that are not read, requests that do not end",
        ("attack::calls::slow_readers",), 400,
    ),
    Row(
        "many streams", "one after another, and open at once",
        ("attack::calls::many_streams",), 480_000,
    ),
    Row(
        "odd ends", "RST_STREAM, GOAWAY, half-closed and broken connections in the middle of calls",
        ("attack::calls::calls_that",), 2_000,
    ),
    Row(
        "the port for metrics",
        "idle connections to it while clients are served, and at the end",
        ("attack::connections::a_flooded_port",), 4_200,
    ),
    Row(
        "hostile members",
        "answers to probes: random and mutated ones, endless headers, huge frames, floods of "
        "CONTINUATION, RST_STREAM, SETTINGS and PING, GOAWAY, slow ones, none; texts of 15 kB for "
        "the log",
        ("attack::members::hostile_members",), 65_000,
    ),
    Row(
        "members that flood", "PING, SETTINGS, DATA, CONTINUATION or RST_STREAM without an end",
        ("attack::members::floods",), 1_500,
    ),
    Row(
        "members hostile to calls",
        "good probes, but no settings, no streams, GOAWAY, endless headers and data, garbage, floods",
        ("attack::calls::members_that",), 120,
    ),
    Row(
        "full accept queue",
        "a member that answers its probes and takes no new connections",
        ("attack::members::a_member_that_takes",), 20,
    ),
    Row(
        "frozen host",
        "all members stop (SIGSTOP) and go on at slightly different times",
        ("failover::a_stall_of_all_members",),
    ),
    Row("silent DNS", "it answers nothing any more", ("names::a_name_without_an_answer",)),
    Row(
        "eight addresses",
        "a name with eight addresses, of which only the last listens",
        ("names::the_last_of_eight_addresses",),
    ),
    Row(
        "certificates: renewals",
        "each in one step or with halves of files, under load",
        ("attack::certificates::certificates_can",), 500,
    ),
    Row(
        "certificates: wrong files",
        "a FIFO, a directory, 10 MB, a device, garbage, an expired one",
        ("attack::certificates::whatever_stands", "attack::certificates::a_start_with"), 3,
    ),
    Row(
        "a stuck reader of the log",
        "a full pipe on stderr, in mode native and with etcd's own proxy",
        ("attack::process::a_reader_of",), 400,
    ),
    Row(
        "installer: kills",
        "install, upgrade and uninstall killed at any moment, and finished by the same command",
        ("install::a_command_killed",), 200,
    ),
    Row(
        "unpacking: kills", "killed at any moment: never half a file",
        ("unpack::unpack_can_be_killed",), 360,
    ),
    Row(
        "installer: full disk, foreign files",
        "a full disk, receipts and directories of others, links that lead elsewhere",
        (
            "install::needs_root::a_full_disk", "install::needs_root::root_does_not_obey",
            "install::a_receipt", "install::links_that", "install::directories_that",
            "install::a_fifo", "install::the_receipt", "unpack::needs_root",
        ),
    ),
    Row(
        "hostile command lines", "any bytes as arguments and settings",
        ("hostile::",), 5_500,
    ),
    Row(
        "out of files", "64 and 130 open files at most, while clients come",
        ("attack::machine::without_files",), 2_000,
    ),
    Row(
        "out of local ports", "32 ports for all connections to members",
        ("attack::machine::needs_root::without_local_ports",), 300,
    ),
    Row(
        "out of memory", "a memory cgroup of 32 MB",
        ("attack::machine::needs_root::a_cgroup",), 3_000,
    ),
    Row(
        "signals", "SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 at any moment, under load",
        ("attack::process::signals",), 40,
    ),
]


class Result(NamedTuple):
    row: Row
    figures: list
    problem: Optional[str]
    seconds: float

    def cells(self):
        verdict = self.problem or "nothing lost"
        figures = "; ".join(self.figures) or "–"
        return self.row.name, self.row.about, figures, f"{self.seconds:.0f} s", verdict


def run(row) -> Result:
    expression = " or ".join(f"test({name})" for name in row.tests)
    command = [
        # It ends everything that the tests have started.
        "timeout", "--kill-after=20", str(TIMEOUT_SECONDS),
        "cargo", "nextest", "run", "--locked", "--test", "it", "--run-ignored", "all",
        "--no-capture", "--no-fail-fast", "-E", f"({expression}) and not test(arm64::)",
    ]
    env = dict(os.environ)
    if row.count is not None:
        env["ETCDPROXY_ATTACK_CASES"] = str(row.count)
        # For tests of properties (tests/it/hostile.rs).
        env["ETCDPROXY_TEST_CASES"] = str(row.count)
    started = time.monotonic()
    code, text = run_bounded(command, env)
    seconds = time.monotonic() - started
    passed = re.search(r"(\d+) tests? run: .*?(\d+) passed", text)
    figures = re.findall(r"^FIGURE (.+)$", text, re.M)
    if passed and code == 0 and not figures:
        figures = [f"{passed[2]} tests passed"]
    problem = None
    if code == TIMED_OUT:
        problem = f"**failed**: no end after {TIMEOUT_SECONDS} s"
    elif passed is None or passed[1] == "0":
        problem = "not tried: no such test"
    elif code != 0:
        names = sorted(set(re.findall(r"^\s+(?:FAIL|TIMEOUT) .*? etcdproxy::it (\S+)", text, re.M)))
        problem = f"**failed**: {', '.join(names) or f'exit code {code}'}"
        print(text, file=sys.stderr)
    return Result(row, figures, problem, seconds)


HEADER = ("attack", "what is done", "counted", "time", "verdict")

PART = """\
## Attacks

`./scripts/attack.sh` wrote this part on {date}, with {what}. Run it to attack
your machine's own build.

Machine: {cores} cores of {cpu}, Linux {kernel}, file system {file_system},
load average {load} at the start.

These are attacks on our own program, on loopback and in namespaces of their
own. Each row is a test that also runs, with small counts, in the test suite.
A row fails if something is lost. In rows that count puts, a load puts, gets and
watches through the proxy during the attack, as above: each acknowledged put is
there at the end, the watch has shown it, and no get was stale. In the other rows
with members, no open connection was cut and new clients were served. In rows
without members, the files are as they should be, and no command panicked. The
log of a proxy has no panic, no line over 1,000 bytes and no control characters.

{table}
"""


def main():
    path = Path(sys.argv[1]).absolute()
    words = sys.argv[2:]
    exit_on_signals()
    names = matching([row.name for row in ROWS], words)
    start = circumstances(path.parent)
    binary = os.environ.get("ETCDPROXY_TEST_BINARY")
    results = []
    for row in ROWS:
        if row.name in names:
            results.append(run(row))
            name, _, counted, took, verdict = results[-1].cells()
            print(f"attack.py: {name}: {verdict} ({took}): {counted}", file=sys.stderr)
    figures = table(HEADER, [result.cells() for result in results])
    if not words:
        what = "the release binary" if binary else "a debug build"
        replace_part(path, MARKER, PART.format(table=figures, what=what, **start))
    print(figures)
    sys.exit(any(result.problem for result in results))


if __name__ == "__main__":
    main()
