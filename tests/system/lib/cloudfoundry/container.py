"""The launcher: a droplet's processes in a container."""

import contextlib
import http.client
import subprocess
import threading
import time

from lib.checks import until
from lib.cloudfoundry.vcap import VCAP, environment, give_to_vcap, new_directory, vcap_processes
from lib.ports import is_open
from lib.processes import Process

WEB = ("127.0.0.1", 8080)
START_SECONDS = 25
STOP_SECONDS = 10  # from SIGTERM to SIGKILL

# Profile scripts see $1, the app's directory, and $2, the start command.
LAUNCHER = r"""
cd "$1"
for script in ../profile.d/* .profile.d/* .profile; do
    if [ -f "$script" ]; then source "$script"; fi
done
shift
exec bash -c "$@"
"""


class Container:
    """The container of an app instance, with an unpacked droplet. `start` starts its processes."""

    def __init__(self, work, droplet, env, sidecars=(), memory_mb=256):
        self.vcap = new_directory(work, "container-") / "home/vcap"
        self.vcap.mkdir(parents=True)
        archive, processes = droplet
        subprocess.run(["tar", "-xzf", archive, "-C", self.vcap], check=True, timeout=30)
        give_to_vcap(self.vcap)
        self.work = work
        self.app = self.vcap / "app"
        self.deps = self.vcap / "deps"
        self.env = env
        self.web = processes["web"]["command"]
        declared = [sidecar(process) for process in processes.values() if is_for_web(process)]
        self.sidecars = [*declared, *sidecars]
        names = [sidecar["name"] for sidecar in self.sidecars]
        assert len(names) == len(set(names)), f"push fails: {names} conflict"
        taken = sum(sidecar.get("memory", 0) for sidecar in self.sidecars)
        assert taken < memory_mb, "push fails: no memory is left for the app"
        self.memory_mb = memory_mb - taken
        self.processes = []
        self.first_exit = None
        self.killed = []
        self.stopping = threading.Event()
        self.watcher = threading.Thread(target=self._watch, daemon=True)

    def launch(self, name, command, process_type="web", by="launcher") -> Process:
        """Start one process, with an empty log."""
        env = environment(self.memory_mb, self.env, process_type) | {
            "HOME": str(self.app),
            "TMPDIR": str(self.vcap / "tmp"),
            "DEPS_DIR": str(self.deps),
            "PORT": str(WEB[1]),
            "INSTANCE_INDEX": "0",
            "CF_INSTANCE_INDEX": "0",
        }
        log = self.work / f"{name}.log"
        log.unlink(missing_ok=True)
        return Process(
            name, ["bash", "-c", LAUNCHER, f"/tmp/lifecycle/{by}", self.app, command], log,
            executable="/bin/bash", cwd=self.vcap, env=env, start_new_session=True,
            user=VCAP, group=VCAP, extra_groups=[],
        )

    def ssh(self, command) -> str:
        """Run a command as in an SSH session. Return its output."""
        session = self.launch("ssh", command, by="shell")
        session.expect_exit(0, seconds=15)
        return session.text()

    def start(self):
        for sidecar in self.sidecars:
            self.processes.append(self.launch(sidecar["name"], sidecar["command"]))
        self.processes.append(self.launch("web", self.web))
        self.watcher.start()

    def _watch(self):
        """End all processes when one of them ends, or when the instance is stopped."""
        while not self.stopping.wait(0.02):
            ended = [process.name for process in self.processes if process.ended()]
            if ended:
                self.first_exit = ended[0]
                break
        running = [process for process in self.processes if not process.ended()]
        for process in running:
            process.popen.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            try:
                process.popen.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.killed.append(process.name)
                process.kill()

    def process(self, name) -> Process:
        (found,) = [process for process in self.processes if process.name == name]
        return found

    def serves(self) -> bool:
        """Whether web listens. Fails if the instance has crashed."""
        assert not self.first_exit, f"{self.first_exit} ended first"
        return is_open(WEB)

    def get(self) -> str:
        """The page, as soon as web listens."""
        until(self.serves, "web listens", START_SECONDS)
        connection = http.client.HTTPConnection(*WEB, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            response = connection.getresponse()
            text = response.read().decode()
        assert response.status == 200, f"{response.status}: {text}"
        return text

    def stop(self):
        """Stop like the platform. SIGTERM must be enough for each process."""
        time.sleep(0.1)  # let `_watch` see a process that has just ended
        self.stopping.set()
        self.check_end(first=None)

    def check_end(self, first):
        """Wait for the end of all processes; `first` is the one that ended by itself."""
        self.watcher.join(STOP_SECONDS + 5)
        assert self.first_exit == first, f"{self.first_exit} ended first"
        assert not self.killed, f"SIGTERM was not enough for {self.killed}"
        left = vcap_processes()
        assert not left, f"left behind: {left}"


def is_for_web(process):
    return "web" in process.get("platforms", {}).get("cloudfoundry", {}).get("sidecar_for", [])


def sidecar(process):
    """A process of launch.yml, as the platform starts it."""
    memory = process.get("limits", {}).get("memory", 0)
    return {"name": process["type"], "command": process["command"], "memory": memory}
