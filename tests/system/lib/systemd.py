"""A container that boots a Debian with systemd."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from lib.checks import same
from lib.processes import LIBC, Process, output

BOOT_SECONDS = 60
COMMAND_SECONDS = 60
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BUS = Path("/run/dbus/system_bus_socket")
POWER_OFF = signal.SIGRTMIN + 4  # the meaning of this signal for pid 1, see systemd(1)


class CannotBoot(Exception):
    """Containers with systemd do not work on this machine."""


class Host:
    """The container. `root` is its root directory, a copy of `image`."""

    def __init__(self, work, image):
        self.root = work / "root"
        self.console = work / "console.log"
        subprocess.run(["cp", "-a", "--reflink=auto", image, self.root], check=True)
        self.container = self.init = None

    def boot(self):
        self.container = Process(
            "container",
            [
                "systemd-nspawn", "--quiet", "--directory", self.root, "--boot",
                "--private-network", "--register=no", "--keep-unit",
            ],
            self.console,
        )
        deadline = time.monotonic() + BOOT_SECONDS
        while not self.is_up():
            if self.container.ended() or time.monotonic() > deadline:
                lines = [line.strip() for line in self.container.text().split("\n")]
                self.kill()
                raise CannotBoot(([line for line in lines if line] or ["no output"])[-1])
            time.sleep(0.1)
        self.enter_network()

    def is_up(self) -> bool:
        pid = self.container.popen.pid
        with contextlib.suppress(OSError, ValueError, IndexError):
            self.init = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
            state = self.call("systemctl is-system-running", check=False)
            return state.strip() in ("running", "degraded")
        return False

    def enter_network(self):
        """Move this process, and what it starts from now on, to the container's network."""
        with open(f"/proc/{self.init}/ns/net") as namespace:
            if LIBC.setns(namespace.fileno(), 0):
                raise CannotBoot("cannot enter the container's network")
        for number in (1, 2, 3):
            output("ip", "address", "replace", f"10.0.0.{number}/32", "dev", "lo")

    def call(self, command, check=True) -> str:
        """Run a command in a root shell. Return its stdout and stderr."""
        done = subprocess.run(
            [
                "nsenter", "--all", "--target", str(self.init), "env", "-i",
                f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", "sh", "-c", f"cd; {command}",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=COMMAND_SECONDS,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}")
        return done.stdout

    def fails(self, command, code) -> str:
        """Like `call`, for a command that must end with this exit code."""
        *lines, found = self.call(f"{command}; echo $?", check=False).splitlines()
        same((command, found), (command, str(code)))
        return "\n".join(lines)

    def property(self, name) -> str:
        """A property of the service, as `systemctl show` prints it."""
        return self.call(f"systemctl show --property {name} --value etcdproxy").strip()

    def put(self, file, name="etcdproxy"):
        """Copy a file to root's home directory."""
        shutil.copy(file, self.root / "root" / name)

    def shut_down(self):
        os.kill(self.init, POWER_OFF)
        self.container.popen.wait(BOOT_SECONDS)

    def kill(self):
        if self.container and not self.container.ended():
            if self.init:
                os.kill(self.init, signal.SIGKILL)  # and with it all processes of the container
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.container.popen.wait(10)
            self.container.kill()


@contextlib.contextmanager
def system_bus(log):
    """systemd-nspawn connects to the system bus, even with --register=no."""
    if BUS.exists():
        yield
        return
    BUS.parent.mkdir(exist_ok=True)
    bus = Process("bus", ["dbus-daemon", "--system", "--nofork", "--nopidfile"], log)
    try:
        yield
    finally:
        bus.popen.terminate()
        bus.popen.wait()
        BUS.unlink(missing_ok=True)
