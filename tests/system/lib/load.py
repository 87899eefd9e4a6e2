"""A client that calls and watches all the time."""

import json
import subprocess
import time

CALLS_PER_SECOND = 50  # of each kind
KINDS = ("puts", "gets", "events")
LOSSES = ("lost_writes", "lost_events", "stale_reads")
SETTLE_SECONDS = 2
RESUME_SECONDS = 60  # the longest time to wait for the load to run again
STOP_SECONDS = 60


class Load:
    """The example client's `load` through `address`; it runs until `stop`."""

    def __init__(self, lab, address):
        argv = (lab.programs.client, "load", "--json", address)
        self.process = lab.start("client", *argv, stdin=subprocess.PIPE)

    def last_line(self):
        *lines, _ = self.process.text().split("\n")
        return json.loads(lines[-1]) if lines else dict.fromkeys(KINDS, 0)

    def runs_for(self, seconds) -> bool:
        """Whether each kind soon succeeds as often as a healthy cluster allows in that time."""
        before = self.last_line()
        enough = CALLS_PER_SECOND * seconds
        deadline = time.monotonic() + RESUME_SECONDS
        while time.monotonic() < deadline:
            if self.process.ended():
                raise RuntimeError("the client has ended")
            now = self.last_line()
            if all(now[kind] - before[kind] >= enough for kind in KINDS):
                return True
            time.sleep(0.05)
        return False

    def settle(self):
        """Wait until the load runs well."""
        if not self.runs_for(SETTLE_SECONDS):
            raise RuntimeError("the load does not run well on a healthy cluster")

    def stop(self):
        """End the client and return its report."""
        self.process.popen.stdin.close()
        self.process.popen.wait(STOP_SECONDS)
        report = self.last_line()
        if "ended" not in report:
            raise RuntimeError("the client could not read back what it wrote")
        return report
