"""What an application of tests/system/failover/ has seen while a member failed."""

import re
from statistics import median
from typing import NamedTuple

DEAD_SECONDS = 2  # a watch that has shown nothing for so long at the end is dead


class Kind(NamedTuple):
    """What has become of the puts or the gets."""

    failed: int
    gap: float

    def __str__(self):
        return f"{self.failed}/{self.gap:.2f}"


class Seen(NamedTuple):
    get: Kind
    put: Kind
    watch: str  # ok; or what went wrong
    delay: float  # seconds: the longest time from an acknowledged put to its event
    lease: str  # ok; or what went wrong
    refused: int  # keepalives
    whys: list

    def __str__(self):
        watch = f"ok {self.delay:.2f}" if self.watch == "ok" else self.watch
        lease = f", {self.refused} failed keepalives" if self.refused else ""
        if self.lease != "ok":
            lease = f", lease {self.lease}"
        return f"{self.get} · {self.put} · {watch}{lease}"

    def missed(self, fault, library) -> list:
        """How this misses the target of native."""
        found = []
        # What speaks HTTP/1.1 is passed on byte for byte, so no read is repeated.
        if self.get.failed > library.speaks_json:
            found.append(f"{self.get.failed} failed gets")
        if self.put.failed > 1:
            found.append(f"{self.put.failed} failed puts")
        gap = max(self.get.gap, self.put.gap, self.delay if self.watch == "ok" else 0)
        if gap > fault.limit:
            found.append(f"{gap:.2f} s instead of {fault.limit:g} s")
        over = ("ok", "told", "DEAD" if library.hides_the_end else "")
        if self.watch not in (over if library.speaks_json else ("ok",)):
            found.append(f"watch {self.watch}")
        if self.lease != "ok":
            found.append(f"lease {self.lease}")
        elif self.refused > library.speaks_json:
            found.append(f"{self.refused} failed keepalives")
        return found


def lines(process):
    """Pairs: time, what. Other output of the application is left out."""
    found = re.findall(r"^@ (\d+\.\d+) (.+)$", process.text(), re.M)
    return [(float(at), what) for at, what in found]


def evaluate(seen, acknowledged, since, until, kept) -> Seen:
    calls = {}
    for kind in ("get", "put"):
        successes = [at for at, what in seen if what == f"{kind} ok" and at <= until]
        failures = [what for at, what in seen if what.startswith(f"{kind} failed") and at >= since]
        before = max(at for at in successes if at <= since)
        times = [before, *(at for at in successes if at > since), until]
        gap = max(end - begin for begin, end in zip(times, times[1:]))
        calls[kind] = Kind(len(failures), gap)
    whys = [what for at, what in seen if at >= since and re.search("failed:|told:", what)]
    watch, delay = watched(seen, acknowledged, until)
    if watch == "DEAD" and any(what.startswith("watch told") for what in whys):
        watch = "told"
    errors = sum(what.startswith("lease told") for what in whys)
    lease = "ok" if kept else "lost, told" if errors else "lost, silent"
    return Seen(calls["get"], calls["put"], watch, delay, lease, errors, whys)


def watched(seen, acknowledged, until):
    """What has become of the watch, and the longest delay of an event, in seconds."""
    events = [(at, int(what.split()[1])) for at, what in seen if what.startswith("event")]
    if not events:
        return "none", 0
    if events[-1][0] < until - DEAD_SECONDS:
        return "DEAD", 0
    first = {}
    for at, number in events:
        first.setdefault(number, at)
    lost = [number for number in acknowledged if number > events[0][1] and number not in first]
    doubled = len(events) - len(first)
    in_order = all(a[1] < b[1] for a, b in zip(events, events[1:]))
    problems = [f"{len(lost)} lost"] * bool(lost) + [f"{doubled} doubled"] * bool(doubled)
    problems += ["out of order"] * (not in_order and not doubled)
    delay = max(at - acknowledged[number] for number, at in first.items() if number in acknowledged)
    return ", ".join(problems) or "ok", max(delay, 0)


def worst(runs) -> Seen:
    """The median of times, and the worst of everything else."""
    def kind(name):
        kinds = [getattr(run, name) for run in runs]
        return Kind(max(k.failed for k in kinds), median(k.gap for k in kinds))
    def bad(name):
        return next((getattr(run, name) for run in runs if getattr(run, name) != "ok"), "ok")
    delay = median(run.delay for run in runs)
    refused = max(run.refused for run in runs)
    whys = [why for run in runs for why in run.whys]
    return Seen(kind("get"), kind("put"), bad("watch"), delay, bad("lease"), refused, whys)
