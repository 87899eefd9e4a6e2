"""Random histories of watches through mode native: the campaign of scripts/check.sh.

usage: check.py DOCUMENT MINUTES

Runs the tests of tests/it/native/checker for so many minutes in all, and writes
what they have counted into its part of the document. Exits with 1 if a row
failed.
"""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

from lib.processes import exit_on_signals, run_bounded
from lib.report import circumstances, replace_part, table

MARKER = "check"

# The last history of a row, and the start of its cluster, come on top.
MORE_SECONDS = 300


class Row(NamedTuple):
    """A test with its settings, and its share of the time."""

    name: str
    test: str
    faults: str
    share: float


PLAIN, PASSWORDS = "random_histories", "random_histories_with_passwords"

ROWS = [
    Row("no faults", PLAIN, "", 0.2),
    Row("faults", PLAIN, "all", 0.4),
    Row("passwords, no faults", PASSWORDS, "", 0.2),
    Row("passwords, faults", PASSWORDS, "all", 0.2),
]


class Result(NamedTuple):
    row: Row
    counts: dict
    problem: str

    def cells(self):
        counted = [f"{count} {what}" for what, count in self.counts.items() if count != "0"]
        return self.row.name, ", ".join(counted) or "–", self.problem or "as the truth"


def run(row, minutes) -> Result:
    seconds = round(minutes * 60 * row.share)
    command = [
        "timeout", "--kill-after=20", str(seconds + MORE_SECONDS),
        "cargo", "test", "--locked", "--quiet", "--test", "it", f"native::checker::{row.test}",
        "--", "--exact", "--nocapture",
    ]
    env = os.environ | {
        "ETCDPROXY_CHECK_SECONDS": str(seconds), "ETCDPROXY_CHECK_FAULTS": row.faults,
        "RUST_BACKTRACE": "0",
    }
    code, text = run_bounded(command, env)
    figures = re.search(r"^FIGURE (.+)$", text, re.M)
    counts = {}
    if figures:
        pairs = re.findall(r"([\d,]+) ([^,]+?)(?:, (?=\d)|$)", figures[1])
        counts = {what: count for count, what in pairs}
    problem = ""
    if code != 0 or not figures:
        seeds = sorted(set(re.findall(r"ETCDPROXY_CHECK_SEED=(\d+)", text)))
        found = f"seeds {', '.join(seeds[:5])}" if seeds else f"exit code {code}"
        problem = f"**failed**: {found}"
        print(text, file=sys.stderr)
    return Result(row, counts, problem)


HEADER = ("row", "counted", "verdict")

PART = """\
## Random histories of watches

`./scripts/check.sh {minutes}` wrote this part on {date}, with {what}.

Machine: {cores} cores of {cpu}, Linux {kernel}, file system {file_system},
load average {load} at the start.

Three real members, the sidecar in mode native, and clients that do random
things, one history after another. Three of them put, delete, compact and write
transactions and keys with leases. Six others open watches and end them: of one
key or of ranges, from now, from the past, from the future or from what is
compacted away, with and without filters, previous values, fragments, progress
and ids of their own. Some stop reading for a while, some close their side of
the stream. Each history is at the same time watched directly on a member, and
that is the truth. What each watch has heard must be exactly the truth: no event
twice, missing or out of order, each revision in one response, progress never
ahead of an event. In each history, some of what was heard is spoilt on purpose,
to see that the comparison notices.

Faults are: a member is killed and started again, or hangs (SIGSTOP); its
connections to the sidecar say nothing, or end, for up to 4 s. With passwords,
the clients have no login, tokens end after 3 s, and the users of the cluster
change all the time.

{table}

"Known violations" are what etcd itself does on a busy machine (`UNDER_LOAD` in
`tests/it/native/checker/mod.rs`).
"""


def main():
    path, minutes = Path(sys.argv[1]).absolute(), int(sys.argv[2])
    exit_on_signals()
    start = circumstances(path.parent)
    what = "the binary of ETCDPROXY_TEST_BINARY" if os.environ.get("ETCDPROXY_TEST_BINARY") \
        else "a debug build"
    results = []
    for row in ROWS:
        results.append(run(row, minutes))
        name, counted, verdict = results[-1].cells()
        print(f"check.py: {name}: {verdict}: {counted}", file=sys.stderr)
    figures = table(HEADER, [result.cells() for result in results])
    part = PART.format(table=figures, what=what, minutes=minutes, **start)
    replace_part(path, MARKER, part)
    print(figures)
    sys.exit(any(result.problem for result in results))


if __name__ == "__main__":
    main()
