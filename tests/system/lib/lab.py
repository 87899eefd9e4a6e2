"""A scratch directory with processes; both go away at the end."""

import shutil
import sys
from pathlib import Path
from typing import NamedTuple, Optional

from lib.ports import random_host
from lib.processes import ENV, Process, output


class Programs(NamedTuple):
    """The binary under test, and the client that some tests need."""

    binary: Path
    client: Optional[Path]  # the example client of this repository


class Lab:
    """`work` is its directory. Labs with the same parent directory share the unpacked etcd."""

    def __init__(self, programs, work):
        self.programs = programs
        self.work = work
        self.env = ENV | {"ETCDPROXY_UNPACK_DIR": str(work.parent / "unpacked")}
        self.host = random_host()
        self.etcd = work / "etcd"
        self.processes = []

    def __enter__(self):
        self.work.mkdir()
        self.etcd.symlink_to(self.programs.binary)
        return self

    def __exit__(self, problem, *_):
        for process in self.processes:
            process.kill()
        if problem and issubclass(problem, Exception):
            for log in sorted(self.work.glob("*.log")):
                lines = log.read_text(errors="replace").splitlines()
                print(f"== {log.name}", *lines[-20:], sep="\n", file=sys.stderr)
        shutil.rmtree(self.work)

    def start(self, name, *argv, **options) -> Process:
        """Start a process that ends with the lab. Its output is added to NAME.log."""
        log = self.work / f"{name}.log"
        process = Process(name, argv, log, **({"env": self.env} | options))
        self.processes.append(process)
        return process

    def wait_ready(self, address):
        """Wait until the member or proxy at this address says that it is healthy."""
        wait = ("wait", "--listen-addr", address, "--timeout", "30s")
        output(self.programs.binary, *wait, env=self.env)
