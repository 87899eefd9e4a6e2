"""`etcdproxy run`."""

from pathlib import Path


class Proxy:
    """A proxy on the lab's host. The constructor returns when it is ready."""

    def __init__(self, lab, endpoints, *flags, name="proxy", host=None, port=2379):
        self.address = f"{host or lab.host}:{port}"
        self.url = f"http://{self.address}"
        where = ("--endpoints", endpoints, "--listen-addr", self.address)
        self.process = lab.start(name, lab.programs.binary, "run", *where, *flags)
        lab.wait_ready(self.address)

    def memory_mb(self, field) -> float:
        """In MB of 1,000,000 bytes. `field` is one of /proc/PID/status, such as VmRSS."""
        status = Path(f"/proc/{self.process.popen.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) * 1024 / 1e6
