"""Start programs and end them."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

# The caller's own settings must not change what is tested.
ENV = {name: value for name, value in os.environ.items() if not name.startswith("ETCD")}
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1


def exit_on_signals():
    """SIGINT and SIGTERM raise SystemExit, so that `with` and `finally` clean up."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def die_with_parent():
    """For `preexec_fn`: the kernel kills the child when its parent ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def output(*argv, env=ENV, seconds=60, **options) -> str:
    """Run a program. Return its stdout without surrounding white space; raise if it fails."""
    done = subprocess.run(
        argv, env=env, check=True, timeout=seconds, text=True, stdout=subprocess.PIPE, **options
    )
    return done.stdout.strip()


def run_bounded(argv, env):
    """Run a program that `timeout` bounds. Return its exit code, and all that it printed."""
    process = subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace",
    )
    try:
        text, _ = process.communicate()
    except SystemExit:
        # Not SIGKILL: `timeout` passes the signal on.
        process.terminate()
        process.wait()
        raise
    return process.returncode, text


class Process:
    """A program in the background. Its output is added to the file `log`."""

    def __init__(self, name, argv, log, stdin=subprocess.DEVNULL, **options):
        self.name = name
        self.log = log
        with open(log, "ab") as out:
            self.popen = subprocess.Popen(
                argv, stdin=stdin, stdout=out, stderr=out, preexec_fn=die_with_parent, **options
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def ended(self) -> bool:
        return self.popen.poll() is not None

    def cpu_seconds(self) -> float:
        """The CPU time that all its threads have used so far, user and system."""
        clock = ctypes.c_int()
        problem = LIBC.clock_getcpuclockid(self.popen.pid, ctypes.byref(clock))
        if problem:
            raise OSError(problem, os.strerror(problem), self.name)
        return time.clock_gettime(clock.value)

    def memory_mb(self, field) -> float:
        """In MB of 1,000,000 bytes. `field` is one of /proc/PID/status, such as VmRSS."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024 / 1e6

    def expect_exit(self, code, seconds):
        """Wait for the end, and check the exit code."""
        found = self.popen.wait(seconds)
        assert found == code, f"{self.name} ended with {found}: {self.text()}"

    def kill(self):
        self.popen.kill()
        self.popen.wait()
