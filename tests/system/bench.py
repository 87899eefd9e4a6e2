"""Sizes, times and memory: the measurements of scripts/bench.sh without a cluster.

usage: bench.py BINARY BINARY_WITH_THREE_PROGRAMS SCRATCH_DIR DOCUMENT
"""

import os
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from lib.droplet import Staging
from lib.ports import free_address, is_open
from lib.processes import ENV, exit_on_signals, output
from lib.report import MEASURED, bytes_row, circumstances, docs, ratio_row, row, table

WARM_UPS = 3
ROUNDS = 100
STAGING_ROUNDS = 15
POLL_SECONDS = 0.0002


class Subject(NamedTuple):
    binary: Path
    three: Path  # with etcd, etcdctl and etcdutl
    work: Path


# Processes are not started with `subprocess`, which would add its own time and memory.


def spawn(path, *argv, env=ENV, quiet=False):
    """Start a program without stdout and, if `quiet`, without stderr. Return its pid."""
    closed = [
        (os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in ((1, 2) if quiet else (1,))
    ]
    return os.posix_spawnp(path, argv, env, file_actions=closed)


def reap(argv, pid):
    """Wait for the end of a process, which must succeed. Return its resource usage."""
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        fail(argv, f"exit code {os.waitstatus_to_exitcode(status)}")
    return usage


def fail(argv, problem):
    sys.exit(f"bench.py: {shlex.join(map(str, argv))}: {problem}")


def run_ms(*argv):
    start = time.perf_counter()
    reap(argv, spawn(argv[0], *argv))
    return (time.perf_counter() - start) * 1000


def cpu_seconds(argv, env):
    """The CPU time of the process and of all children that it waited for."""
    usage = reap(argv, spawn(argv[0], *argv, env=env))
    return usage.ru_utime + usage.ru_stime


# Linux also counts the memory that a process had before its exec. After a
# posix_spawn by this interpreter that is a lot. A bare interpreter adds less.
FORK_AND_PRINT_PEAK = """
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
    bare = (sys.executable, "-I", "-S", "-c", FORK_AND_PRINT_PEAK)
    return int(output(*bare, *argv)) / 1024


def in_turns(*contestants):
    """A list of times for each. They take turns, so other load affects them all alike."""
    rounds = [[once() for once in contestants] for _ in range(WARM_UPS + ROUNDS)]
    return zip(*rounds[WARM_UPS:])


# Measurements. Each yields rows. Its docstring goes into the document.


def size(subject):
    """**Size**: the size of the release binary. The default build carries etcd
    from a Cargo package. The other build carries etcd, etcdctl and etcdutl
    from the release tarball that `scripts/three_binaries.sh` makes.
    """
    for binary, programs, limit in (
        (subject.binary, "etcd", 9),
        (subject.three, "etcd, etcdctl and etcdutl", 11),
    ):
        yield bytes_row(f"binary with {programs} {embedded(binary)[0]}", binary, limit)


def embedded(binary):
    """The version and platform of its etcd, such as 3.7.2 and linux-amd64."""
    return output(binary, "version").split()[-2:]


def unpacking(subject):
    """**Unpacking**: the whole process `etcdproxy unpack DIR`. It decompresses
    etcd, checks every byte, calls fsync and publishes the file by rename. It
    is compared with `tar xzf` of the same etcd (the only program in its
    tarball, packed with `gzip -9`), and with `cp` of it. Those two neither
    check the file nor call fsync. All write to the same file system. The
    result is removed before the next turn; the time does not include that.
    Peak memory is `ru_maxrss` of the process, the highest of five runs.
    """
    out = subject.work / "out"
    release = subject.work / "etcd-v{}-{}".format(*embedded(subject.binary))
    tarball = subject.work / "release.tar.gz"
    output(subject.binary, "unpack", release)
    gzip = "--use-compress-program=gzip -9n"
    output("tar", gzip, "-C", subject.work, "-cf", tarball, release.name)

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
    yield ratio_row("unpack, against `tar xzf`", ours, tar, 0.25)
    yield ratio_row("unpack, against `cp`", ours, cp, 2.5)
    peak = max(into_empty(peak_mib, *unpack) for _ in range(5))
    floor = f"`true` measured the same way: {peak_mib('true'):.2f} MiB"
    yield row("unpack, peak memory", peak, " MiB", floor, 16)


def proxy_start(subject):
    """**Proxy start**: the time from the start of `etcdproxy run` until its
    port is open. It is compared with the command `etcd grpc-proxy start` that
    `etcdproxy run --dry-run` prints. Both run the same etcd file, unpacked
    before. The port is tried every 0.2 ms. Each start has a new port. The
    endpoint is a closed port instead of a cluster: the proxy opens its own
    port anyway.
    """
    env = ENV | {"ETCDPROXY_UNPACK_DIR": str(subject.work / "unpacked")}
    link = subject.work / "etcd"
    link.symlink_to(subject.binary)
    output(link, "--version", env=env)
    (etcd,) = subject.work.glob("unpacked/*/etcd")

    def until_open(bare):
        address = free_address()
        path = subject.binary
        argv = [path, "run", "--endpoints=127.0.0.1:1", "--listen-addr={}:{}".format(*address)]
        if bare:
            command = output(*argv, "--dry-run", env=env).splitlines()[-1]
            path, argv = etcd, shlex.split(command)
        start = time.perf_counter()
        pid = spawn(path, *argv, env=env, quiet=True)
        try:
            while not is_open(address):
                if time.perf_counter() - start > 10:
                    fail(argv, "its port is not open after 10 s")
                time.sleep(POLL_SECONDS)
            return (time.perf_counter() - start) * 1000
        finally:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)

    ours, bare = in_turns(lambda: until_open(False), lambda: until_open(True))
    yield ratio_row("`etcdproxy run` to open port, against bare etcd", ours, bare, 1.1)


def own_start(subject):
    """**Own start**: the whole process `etcdproxy version`."""
    (times,) = in_turns(lambda: run_ms(subject.binary, "version"))
    detail = f"minimum {min(times):.2f} ms"
    yield row("`etcdproxy version`", median(times), " ms", detail, 2)


def staging(subject):
    """**Staging**: `etcdproxy supply`, and the `tar -czf` of its files, as
    the platform runs them at each staging: CPU time of the processes and all
    their children, {staging_rounds} rounds. The droplet part is the size of
    that tar. `launch` means BP_ETCDPROXY_UNPACK=launch. The targets come from
    the Go buildpack of 2019: supply took 0.433 s and 34.1 MiB, supply and tar
    took 3.43 s, the droplet part had 20.5 MB and the zip 23.0 MB.
    """
    parts = Staging(subject.binary, subject.work)

    def stage(env):
        parts.deps.mkdir()
        supplied = cpu_seconds(parts.supply, env)
        packed = cpu_seconds(parts.pack, env)
        shutil.rmtree(parts.deps)
        return supplied, supplied + packed

    for name, supply_limit, limit, droplet_limit in (
        ("stage", 0.11, 1.75, 10.3),
        ("launch", None, 0.45, 8.9),
    ):
        env = ENV | {"BP_ETCDPROXY_UNPACK": name}
        alone, whole = zip(*(stage(env) for _ in range(STAGING_ROUNDS)))
        if supply_limit:
            detail = f"minimum {min(alone):.3f} s"
            yield row("supply, CPU", median(alone), " s", detail, supply_limit)
            parts.deps.mkdir()
            yield row("supply, peak memory", peak_mib(*parts.supply), " MiB", "of one run", 16)
            shutil.rmtree(parts.deps)
        detail = f"minimum {min(whole):.2f} s"
        yield row(f"supply and tar, CPU, {name}", median(whole), " s", detail, limit)
        yield bytes_row(f"droplet part, {name}", parts.archive, droplet_limit)


def package(subject):
    """**Package**: the size of the zip that `etcdproxy package` writes, and of
    the container images (`--format oci`), compressed as they are in a registry.
    The time is that of one run. `gzip -9` takes most of it.
    """
    archive = subject.work / "buildpack.zip"
    for binary, name, limit in (
        (subject.binary, "default build", 9),
        (subject.three, "build with three programs", 11.4),
    ):
        output(binary, "package", "--output", archive)
        yield bytes_row(f"zip of the {name}", archive, limit)
    for flags, name, limit in (
        ((), "default build", 11.5),
        (("--without-etcd",), "launcher alone", 2.5),
    ):
        made = run_ms(subject.binary, "package", "--format", "oci", *flags, "--output", archive)
        yield bytes_row(f"image of the {name}", archive, limit)
        peak = peak_mib(subject.binary, "package", "--format", "oci", *flags, "--output", archive)
        yield row(f"image of the {name}, time", made / 1000, " s", f"peak memory {peak:.1f} MiB")


MEASUREMENTS = [size, unpacking, proxy_start, own_start, staging, package]

DOCUMENT = """\
# Benchmarks

`./scripts/bench.sh` wrote this on {date}. Run it to measure your machine.

Machine: {cores} cores of {cpu}, Linux {kernel}, file system {file_system},
load average {load} at the start.

Times are wall-clock times. The programs in a comparison take turns: {warm_ups} rounds
to warm up, then {rounds} rounds that count. A time is the median of its rounds.
A ratio is one median divided by the other.

{how}

{table}
"""


def main():
    binary, three, work, path = (Path(arg).absolute() for arg in sys.argv[1:])
    exit_on_signals()
    subject = Subject(binary, three, work)
    facts = circumstances(work)
    rows = []
    for measure in MEASUREMENTS:
        print(f"bench.py: measuring: {measure.__name__}", file=sys.stderr)
        rows += measure(subject)
    how = docs(MEASUREMENTS).replace("{staging_rounds}", str(STAGING_ROUNDS))
    figures = table(MEASURED, rows)
    path.parent.mkdir(exist_ok=True)
    path.write_text(DOCUMENT.format(
        table=figures, how=how, warm_ups=WARM_UPS, rounds=ROUNDS, **facts
    ))
    print(figures)


if __name__ == "__main__":
    main()
