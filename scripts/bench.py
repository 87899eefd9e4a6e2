"""The measurements of scripts/bench.sh, which calls this with what it built.

usage: bench.py BINARY BINARY_WITH_THREE_PROGRAMS SCRATCH_DIR DOCUMENT
"""

import contextlib
import datetime
import inspect
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple, Optional

WARM_UPS = 3
ROUNDS = 100
STAGING_ROUNDS = 15
POLL_SECONDS = 0.0002
STOPPING = (signal.SIGINT, signal.SIGTERM)

# A setting of the caller's must not reach what is measured.
ENV = {k: v for k, v in os.environ.items() if not k.startswith("ETCD")}

live = set()  # pids to end when this is stopped


class Subject(NamedTuple):
    binary: Path
    three: Path
    work: Path


class Row(NamedTuple):
    what: str
    measured: str
    target: str
    met: Optional[bool]  # None: there is no target
    missed_by: str

    def __str__(self):
        verdict = "met" if self.met else f"missed by {self.missed_by}"
        if self.met is None:
            verdict = "–"
        return f"| {self.what} | {self.measured} | {self.target} | {verdict} |"


def at_most(what, value, limit, unit, detail):
    excess = value - limit
    return Row(
        what=what,
        measured=f"{value:.2f}{unit} ({detail})",
        target=f"at most {limit:.2f}{unit}",
        met=excess <= 0,
        missed_by=(f"{excess:.2f}" if excess >= 0.01 else "<0.01") + unit,
    )


def ratio_at_most(what, ours, theirs, limit):
    ratio = median(ours) / median(theirs)
    detail = (
        f"medians {median(ours):.1f} and {median(theirs):.1f} ms, "
        f"ratio of the minima {min(ours) / min(theirs):.2f}×"
    )
    return at_most(what, ratio, limit, "×", detail)


# Processes


def spawn(path, *argv, env=ENV, quiet=False):
    null = [
        (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0)
        for fd in ((1, 2) if quiet else (1,))
    ]
    # No signal may come between a child's start and its entry in `live`.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        pid = os.posix_spawnp(
            path, argv, env, file_actions=null, setsigmask=before
        )
        live.add(pid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pid


def reap(pid):
    _, status = os.waitpid(pid, 0)
    live.discard(pid)
    return os.waitstatus_to_exitcode(status)


def cpu_seconds(argv, env):
    """Of the process and of all that it waited for."""
    pid = spawn(argv[0], *argv, env=env)
    _, status, usage = os.wait4(pid, 0)
    live.discard(pid)
    if status != 0:
        fail(argv, f"status {status}")
    return usage.ru_utime + usage.ru_stime


def fail(argv, problem):
    sys.exit(f"bench.py: {shlex.join(map(str, argv))}: {problem}")


def run_ms(*argv):
    start = time.perf_counter()
    code = reap(spawn(argv[0], *argv))
    took = time.perf_counter() - start
    if code != 0:
        fail(argv, f"exit code {code}")
    return took * 1000


def output(*argv, env=ENV):
    done = subprocess.run(
        argv, env=env, check=True, timeout=60, text=True,
        stdout=subprocess.PIPE,
    )
    return done.stdout.strip()


# Linux counts what a process had in memory before its exec: after a
# posix_spawn by this interpreter, all of that. A fork by a bare one adds less.
FORK_AND_TELL_PEAK = """
import os, sys
pid = os.fork()
if pid == 0:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak_mib(*argv):
    bare = (sys.executable, "-I", "-S", "-c", FORK_AND_TELL_PEAK)
    return int(output(*bare, *argv)) / 1024


def in_turns(*contestants):
    """A list of times for each; what else the machine does meets all alike."""
    rounds = [
        [once() for once in contestants] for _ in range(WARM_UPS + ROUNDS)
    ]
    return zip(*rounds[WARM_UPS:])


# Measurements. Each yields rows; its docstring goes into the document.


def size(subject):
    """**Size**: the bytes of the release binary. The default build carries
    etcd from the build-dependency; the other one etcd, etcdctl and etcdutl
    from the release tarball that `scripts/three_binaries.sh` makes.
    """
    for binary, programs, limit in (
        (subject.binary, "etcd", 9),
        (subject.three, "etcd, etcdctl and etcdutl", 11),
    ):
        what = f"binary with {programs} {carried(binary)[0]}"
        count = binary.stat().st_size
        yield at_most(what, count / 1e6, limit, " MB", f"{count:,} bytes")


def carried(binary):
    """Version and platform, as in 3.7.2 and linux-amd64."""
    return output(binary, "version").split()[-2:]


def unpacking(subject):
    """**Unpacking**: the whole process `etcdproxy unpack DIR`, which
    decompresses, checks every byte, calls fsync and publishes by rename;
    against `tar xzf` of the same etcd (the only program in its tarball, packed
    with `gzip -9`), and against `cp` of it. Those two neither check nor call
    fsync. All write to the same file system; what they wrote is removed before
    the next turn, which is not timed. Peak memory is `ru_maxrss` of that
    process, the highest of five.
    """
    out = subject.work / "out"
    release = subject.work / "etcd-v{}-{}".format(*carried(subject.binary))
    tarball = subject.work / "release.tar.gz"
    output(subject.binary, "unpack", release)
    output(
        "tar", "--use-compress-program=gzip -9n", "-C", subject.work,
        "-cf", tarball, release.name,
    )

    def into_empty(measure, *argv):
        out.mkdir()
        took = measure(*argv)
        shutil.rmtree(out)
        return took

    unpack = (subject.binary, "unpack", out)
    ours, tar, cp = in_turns(
        lambda: into_empty(run_ms, *unpack),
        lambda: into_empty(run_ms, "tar", "-C", out, "-xzf", tarball),
        lambda: into_empty(run_ms, "cp", release / "etcd", out),
    )
    yield ratio_at_most("unpack, against `tar xzf`", ours, tar, 0.25)
    yield ratio_at_most("unpack, against `cp`", ours, cp, 2.5)
    peak = max(into_empty(peak_mib, *unpack) for _ in range(5))
    floor = f"`true` measured alike: {peak_mib('true'):.2f} MiB"
    yield at_most("unpack, peak memory", peak, 16, " MiB", floor)


def proxy_start(subject):
    """**Proxy start**: from the start of `etcdproxy run` until its port is
    open; against the `etcd grpc-proxy start` that `etcdproxy run --dry-run`
    prints. Both run the same etcd file, unpacked before. The port is tried
    every 0.2 ms; each start has a fresh one. In the place of the cluster is a
    closed port: the proxy opens its own regardless.
    """
    env = ENV | {"ETCDPROXY_UNPACK_DIR": str(subject.work / "unpacked")}
    link = subject.work / "etcd"
    link.symlink_to(subject.binary)
    output(link, "--version", env=env)
    (etcd,) = subject.work.glob("unpacked/*/etcd")

    def until_open(bare):
        address = free_address()
        path = subject.binary
        argv = [
            path, "run", "--endpoints=127.0.0.1:1",
            "--listen-addr={}:{}".format(*address),
        ]
        if bare:
            command = output(*argv, "--dry-run", env=env).splitlines()[-1]
            path, argv = etcd, shlex.split(command)
        start = time.perf_counter()
        pid = spawn(path, *argv, env=env, quiet=True)
        while not is_open(address):
            if time.perf_counter() - start > 10:
                fail(argv, "its port is not open after 10 s")
            time.sleep(POLL_SECONDS)
        took = time.perf_counter() - start
        os.kill(pid, signal.SIGTERM)
        reap(pid)
        return took * 1000

    ours, bare = in_turns(lambda: until_open(False), lambda: until_open(True))
    what = "`etcdproxy run` to open port, against bare etcd"
    yield ratio_at_most(what, ours, bare, 1.1)


def free_address():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()


def is_open(address):
    # From another address: a connection to a free port of its own address
    # can meet itself.
    source = ("127.0.0.2", 0)
    try:
        socket.create_connection(address, source_address=source).close()
    except ConnectionRefusedError:
        return False
    return True


def own_start(subject):
    """**Own start**: the whole process `etcdproxy version`."""
    (times,) = in_turns(lambda: run_ms(subject.binary, "version"))
    detail = f"minimum {min(times):.2f} ms"
    yield at_most("`etcdproxy version`", median(times), 2, " ms", detail)


def staging(subject):
    """**Staging**: `etcdproxy supply`, and the `tar -czf` of what it leaves,
    which the platform does at each staging; CPU time of the processes and all
    their children, {staging_rounds} rounds. The droplet part is the size of
    that tar. `launch` is BP_ETCDPROXY_UNPACK=launch. The targets come from
    the Go buildpack of 2019: supply 0.433 s and 34.1 MiB, with tar 3.43 s,
    droplet part 20.5 MB, zip 23.0 MB.
    """
    build, cache, deps, droplet = (
        subject.work / name for name in ("build", "cache", "deps", "x.tgz")
    )
    supply = (subject.binary, "supply", build, cache, deps, "0")
    for directory in (build, cache):
        directory.mkdir()

    def stage(env):
        deps.mkdir()
        supplied = cpu_seconds(supply, env)
        packed = cpu_seconds(("tar", "-C", deps, "-czf", droplet, "."), env)
        shutil.rmtree(deps)
        return supplied, supplied + packed

    for name, limits in (
        ("stage", (0.11, 1.75, 10.3)),
        ("launch", (None, 0.45, 8.9)),
    ):
        env = ENV | {"BP_ETCDPROXY_UNPACK": name}
        alone, whole = zip(*(stage(env) for _ in range(STAGING_ROUNDS)))
        if limits[0]:
            detail = f"minimum {min(alone):.3f} s"
            yield at_most("supply, CPU", median(alone), limits[0], " s", detail)
            deps.mkdir()
            peak = peak_mib(*supply)
            shutil.rmtree(deps)
            yield at_most("supply, peak memory", peak, 16, " MiB", "of one run")
        detail = f"minimum {min(whole):.2f} s"
        what = f"supply and tar, CPU, {name}"
        yield at_most(what, median(whole), limits[1], " s", detail)
        count = droplet.stat().st_size
        what = f"droplet part, {name}"
        yield at_most(what, count / 1e6, limits[2], " MB", f"{count:,} bytes")


def package(subject):
    """**Package**: the bytes of the zip that `etcdproxy package` writes."""
    for binary, limit in ((subject.binary, 9), (subject.three, 11.4)):
        path = subject.work / "buildpack.zip"
        output(binary, "package", "--output", path)
        count = path.stat().st_size
        what = f"zip of the {'three' if limit > 9 else 'default'} binary"
        yield at_most(what, count / 1e6, limit, " MB", f"{count:,} bytes")


MEASUREMENTS = [size, unpacking, proxy_start, own_start, staging, package]


DOCUMENT = """\
# Benchmarks

Written by `./scripts/bench.sh` on {date}. Run it to measure your machine.

Machine: {cores} cores of {cpu}, Linux {kernel}, file system {file_system},
load average {load} at the start.

How each row is measured: times are wall-clock time. Contestants take turns,
{warm_ups} rounds to warm up and {rounds} that count. A time is the median of
its rounds, a ratio that of the medians.

{how}

{table}
"""


def circumstances(path):
    """When and on what it is measured, with files below the path."""
    return {
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu_model(),
        "kernel": os.uname().release,
        "file_system": output("df", "--output=fstype", path).split()[-1],
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def document(subject):
    how = (
        inspect.getdoc(m).replace("{staging_rounds}", str(STAGING_ROUNDS))
        for m in MEASUREMENTS
    )
    facts = {
        **circumstances(subject.work),
        "warm_ups": WARM_UPS,
        "rounds": ROUNDS,
        "how": "\n".join("- " + textwrap.indent(t, "  ")[2:] for t in how),
    }
    table = ["| what | measured | target | met |", "|---|---|---|---|"]
    for measure in MEASUREMENTS:
        print(f"bench.py: measuring: {measure.__name__}", file=sys.stderr)
        table += map(str, measure(subject))
    return DOCUMENT.format(table="\n".join(table), **facts)


def cpu_model():
    info = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE)
    return found[1] if found else os.uname().machine


def end_live():
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    for pid in live:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def main():
    binary, three, work, path = (Path(arg).absolute() for arg in sys.argv[1:])
    for number in STOPPING:
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        text = document(Subject(binary, three, work))
    finally:
        end_live()
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    print(text[text.index("| what"):], end="")


if __name__ == "__main__":
    main()
