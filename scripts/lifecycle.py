"""A Cloud Foundry of the tests' own, and the cases of scripts/integration.sh.

usage: lifecycle.py ZIP BINARY WORK_DIR [WORD...]

Stages the fixtures with the packaged buildpack and launches them as the
platform does, each case in network and process namespaces of its own. With
words, runs only the cases that have one of them in their names.
"""

import contextlib
import hashlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from functools import partial
from pathlib import Path

import yaml

FIXTURES = Path(__file__).absolute().parent.parent / "fixtures"
VCAP = 2000  # the user that stages and runs apps
SYSTEM_PATH = "/usr/bin:/bin"
PORT = 8080
PROXY = ("127.0.0.1", 2379)
CASE_SECONDS = 60
STAGING_SECONDS = 30
START_SECONDS = 25
STOP_SECONDS = 10  # from SIGTERM to SIGKILL
# Nobody listens there, and nothing of staging may be left at launch.
ENDPOINTS_AT_STAGING = "192.0.2.1:2379"

# The exit codes of the platform's builder
DETECT_FAILED, COMPILE_FAILED, RELEASE_FAILED, SUPPLY_FAILED = range(222, 226)


# The platform: staging

# Other buildpacks. Their scripts are the least that the contract asks for.

SUPPLY_OF_OTHERS = r"""#!/bin/sh
printf 'name: other\nversion: 1.0.0\n' >"$3/$4/config.yml"
"""

FINALIZE = r"""#!/bin/bash
# As libbuildpack has it: the last buildpack's directory comes first.
set -euo pipefail
deps=$3 profile=$5
shopt -s nullglob
export_all() { # variable, directory
    local dir index list=
    for dir in "$deps"/*/"$2"; do
        index=${dir#"$deps/"}
        list="\$DEPS_DIR/${index%%/*}/$2${list:+:$list}"
    done
    [ -z "$list" ] || echo "export $1=\"$list\${$1:+:\$$1}\""
}
{
    export_all PATH bin
    export_all LD_LIBRARY_PATH lib
    export_all LIBRARY_PATH lib
} >"$profile/000_multi-supply.sh"
for script in "$deps"/*/profile.d/*; do
    index=${script#"$deps/"}
    cp "$script" "$profile/${index%%/*}_${script##*/}"
done
"""

RELEASE = r"""#!/bin/sh
web='exec python3 -m http.server $PORT'
if [ -f "$1/config.ru" ]; then
    web='exec rackup -E production -p $PORT config.ru'
fi
echo "default_process_types: {web: '$web'}"
"""


def write_buildpack(path, **scripts):
    (path / "bin").mkdir(parents=True)
    for name, text in scripts.items():
        script = path / "bin" / name
        script.write_text(text)
        script.chmod(0o755)


def unzip(archive, into):
    """As the platform does: the entry's mode counts."""
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            path = Path(opened.extract(entry, into))
            path.chmod(0o755 if entry.is_dir() else entry.external_attr >> 16)


class StagingFailed(Exception):
    def __init__(self, code, output):
        super().__init__(f"staging failed with code {code}: {output}")
        self.code = code
        self.output = output


class Builder:
    """Stages one app with one list of buildpacks, the last one final."""

    def __init__(self, work, app, buildpacks, env):
        # At staging every path is a random one.
        self.root = directory(work, "staging-")
        self.build = self.root / "app"
        self.cache = self.root / "cache"
        self.contents = self.root / "contents"
        self.deps = self.contents / "deps"
        self.profile = self.contents / "profile.d"
        self.home = self.root / "home"
        self.tmp = self.root / "tmp"
        self.buildpacks = buildpacks
        digits = len(str(len(buildpacks)))
        numbers = range(len(buildpacks))
        self.indexes = [str(number).zfill(digits) for number in numbers]
        shutil.copytree(app, self.build)
        for index in self.indexes:
            (self.deps / index).mkdir(parents=True)
            (self.cache / index).mkdir(parents=True)
        for path in (self.profile, self.home, self.tmp):
            path.mkdir()
        give_to_vcap(self.root)
        self.env = environment(256, env) | {
            "CF_STACK": "cflinuxfs4",
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
        }

    def run(self, code, buildpack, script, *args):
        """Without a network. Gives what the script printed to stdout."""
        done = subprocess.run(
            [
                "unshare", "--net", "setpriv", f"--reuid={VCAP}",
                f"--regid={VCAP}", "--clear-groups", "--no-new-privs", "--",
                buildpack / "bin" / script, *args,
            ],
            env=self.env, cwd=self.home, timeout=STAGING_SECONDS, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        print(f"== {script}", *args, f": {done.returncode}")
        print(done.stdout + done.stderr, end="")
        assert not living(), f"{script} left processes: {living()}"
        if done.returncode != 0:
            raise StagingFailed(code, done.stdout + done.stderr)
        return done.stdout

    def detect(self):
        """When no buildpack was named: the first that says yes."""
        for buildpack in self.buildpacks:
            with contextlib.suppress(StagingFailed):
                self.run(DETECT_FAILED, buildpack, "detect", self.build)
                return buildpack
        raise StagingFailed(DETECT_FAILED, "no buildpack said yes")

    def supply_and_finalize(self):
        *supplying, final = zip(self.indexes, self.buildpacks)
        app = tree(self.build)
        for index, buildpack in supplying:
            paths = (self.build, self.cache / index, self.deps, index)
            self.run(SUPPLY_FAILED, buildpack, "supply", *paths)
            assert tree(self.build) == app, "supply changed the app"
            self.check_supplied(self.deps / index)
        index, buildpack = final
        paths = (self.build, self.cache / index)
        if (buildpack / "bin/finalize").exists():
            paths += (self.deps, index, self.profile)
            self.run(COMPILE_FAILED, buildpack, "finalize", *paths)
        else:
            shutil.rmtree(self.deps / index)
            self.run(COMPILE_FAILED, buildpack, "compile", *paths)

    def check_supplied(self, supplied):
        config = yaml.safe_load((supplied / "config.yml").read_text())
        assert re.fullmatch(r"\d+\.\d+\.\d+", config["version"]), config
        for path in (*self.cache.iterdir(), self.home, self.tmp):
            assert not any(path.iterdir()), f"supply wrote to {path}"
        for path in self.deps.rglob("*"):
            if path.is_symlink():
                assert not os.readlink(path).startswith("/"), path
                assert path.exists(), f"{path} leads nowhere"
            elif path.is_dir():
                assert path.name != "lib" or any(path.iterdir()), path
            else:
                baked = bytes(self.root) in path.read_bytes()
                assert not baked, f"{path} names the staging directory"

    def processes(self):
        """Of all buildpacks' launch.yml, the release and the Procfile."""
        processes = {}
        count = len(self.buildpacks)
        for number in range(count):
            # Not padded: so the platform's builder has it.
            launch = self.deps / str(number) / "launch.yml"
            if launch.exists():
                declared = yaml.safe_load(launch.read_text())["processes"]
                processes |= {process["type"]: process for process in declared}
        if not (self.deps / str(count - 1) / "launch.yml").exists():
            release = self.run(
                RELEASE_FAILED, self.buildpacks[-1], "release", self.build
            )
            types = yaml.safe_load(release)["default_process_types"]
            processes |= commands(types)
        procfile = self.build / "Procfile"
        if procfile.exists():
            processes |= commands(yaml.safe_load(procfile.read_text()))
        return processes

    def stage(self):
        self.supply_and_finalize()
        return self.processes()

    def pack(self, droplet):
        """The platform's own way to make a droplet."""
        self.build.rename(self.contents / "app")
        for name in ("tmp", "logs"):
            (self.contents / name).mkdir()
        subprocess.run(
            ["tar", "-czf", droplet, "-C", self.contents, "."],
            check=True, timeout=STAGING_SECONDS,
        )


def environment(memory, own, process_type=None):
    """What is set both at staging and at launch, and the app's own."""
    application = {"application_name": "app", "process_id": "guid"}
    if process_type:
        application["process_type"] = process_type
    env = {
        "PATH": SYSTEM_PATH,
        "LANG": "en_US.UTF-8",
        "USER": "vcap",
        "MEMORY_LIMIT": f"{memory}m",
        "VCAP_APPLICATION": json.dumps(application),
    }
    # There is exactly one of the three.
    if not {"SERVICE_BINDING_ROOT", "VCAP_SERVICES_FILE_PATH"} & set(own):
        env["VCAP_SERVICES"] = "{}"
    return env | own


def commands(types):
    return {
        name: {"type": name, "command": command}
        for name, command in types.items()
    }


def sidecar_for(process):
    platforms = process.get("platforms", {})
    return platforms.get("cloudfoundry", {}).get("sidecar_for", [])


def read_manifest(path, endpoints):
    """The one application of the manifest that was pushed with these."""
    text = path.read_text().replace("((etcd_endpoints))", endpoints)
    (application,) = yaml.safe_load(text)["applications"]
    env = application.get("env", {})
    application["env"] = {
        name: json.dumps(value) if isinstance(value, bool) else str(value)
        for name, value in env.items()
    }
    return application


# The platform: launch

# Profile scripts see $1, the app's directory, and $2, the start command.
LAUNCHER = r"""
cd "$1"
for script in ../profile.d/* .profile.d/* .profile; do
    if [ -f "$script" ]; then source "$script"; fi
done
shift
exec bash -c "$@"
"""


class Process:
    def __init__(self, name, argv, log, **options):
        self.name = name
        self.log = log
        with open(log, "wb") as out:
            self.popen = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, **options,
            )

    def ended(self):
        return self.popen.poll() is not None

    def end(self, code, seconds):
        """Waits for the end with that code."""
        found = self.popen.wait(timeout=seconds)
        assert found == code, f"{self.name} ended with {found}: {self.text()}"

    def text(self):
        return self.log.read_text(errors="replace")


class Instance:
    """A droplet unpacked in a container, with or without its processes."""

    def __init__(self, work, droplet, env, sidecars=(), memory=256):
        self.vcap = directory(work, "container-") / "home/vcap"
        self.vcap.mkdir(parents=True)
        archive, processes = droplet
        subprocess.run(
            ["tar", "-xzf", archive, "-C", self.vcap],
            check=True, timeout=STAGING_SECONDS,
        )
        give_to_vcap(self.vcap)
        self.work = work
        self.app = self.vcap / "app"
        self.deps = self.vcap / "deps"
        self.env = env
        self.web = processes["web"]["command"]
        declared = [
            {
                "name": process["type"],
                "command": process["command"],
                "memory": process.get("limits", {}).get("memory", 0),
            }
            for process in processes.values()
            if "web" in sidecar_for(process)
        ]
        self.sidecars = [*declared, *sidecars]
        names = [sidecar["name"] for sidecar in self.sidecars]
        assert len(names) == len(set(names)), f"push fails: {names} conflict"
        taken = sum(sidecar.get("memory", 0) for sidecar in self.sidecars)
        assert taken < memory, "push fails: no memory is left for the app"
        self.memory = memory - taken
        self.processes = []
        self.first_exit = None
        self.killed = []
        self.stopping = threading.Event()
        self.keeper = threading.Thread(target=self._keep, daemon=True)

    def launch(self, name, command, process_type="web", by="launcher"):
        env = environment(self.memory, self.env, process_type) | {
            "HOME": str(self.app),
            "TMPDIR": str(self.vcap / "tmp"),
            "DEPS_DIR": str(self.deps),
            "PORT": str(PORT),
            "INSTANCE_INDEX": "0",
            "CF_INSTANCE_INDEX": "0",
        }
        by = f"/tmp/lifecycle/{by}"
        return Process(
            name, ["bash", "-c", LAUNCHER, by, self.app, command],
            self.work / f"{name}.log", executable="/bin/bash", cwd=self.vcap,
            env=env, user=VCAP, group=VCAP, extra_groups=[],
        )

    def ssh(self, command):
        """A session in web's container. Gives what it printed."""
        session = self.launch("ssh", command, by="shell")
        session.end(0, seconds=15)
        return session.text()

    def start(self):
        for sidecar in self.sidecars:
            process = self.launch(sidecar["name"], sidecar["command"])
            self.processes.append(process)
        self.processes.append(self.launch("web", self.web))
        self.keeper.start()

    def _keep(self):
        """The first exit of any of them, like a stop, ends them all."""
        while not self.stopping.wait(0.02):
            ended = [p.name for p in self.processes if p.ended()]
            if ended:
                self.first_exit = ended[0]
                break
        living = [p for p in self.processes if not p.ended()]
        for process in living:
            process.popen.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in living:
            try:
                process.popen.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.killed.append(process.name)
                process.popen.kill()
                process.popen.wait()

    def process(self, name):
        (found,) = [p for p in self.processes if p.name == name]
        return found

    def serves(self):
        """Whether web listens; fails when the instance has crashed."""
        assert not self.first_exit, f"{self.first_exit} ended first"
        return is_open(("127.0.0.1", PORT))

    def get(self):
        """The page, as soon as web listens."""
        until(self.serves, "web listens", START_SECONDS)
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            response = connection.getresponse()
            text = response.read().decode()
        assert response.status == 200, f"{response.status}: {text}"
        return text

    def stop(self):
        """A stop by the platform. All must obey the SIGTERM."""
        time.sleep(0.1)  # an exit just now comes first
        self.stopping.set()
        self.check_end(first=None)

    def check_end(self, first):
        self.keeper.join(STOP_SECONDS + 5)
        assert self.first_exit == first, f"{self.first_exit} ended first"
        assert not self.killed, f"SIGTERM was not enough for {self.killed}"
        assert not living(), f"left behind: {living()}"


class Cluster:
    """Three members of etcd. They keep their addresses over a stop."""

    def __init__(self, lab):
        data = lab.work / "cluster"
        self.argv = [lab.binary, "dev", "--nodes", "3", "--data-dir", data]
        self.log = lab.work / "cluster.log"
        unpacked = str(lab.shared / "unpacked")
        self.env = {"PATH": SYSTEM_PATH, "ETCDPROXY_UNPACK_DIR": unpacked}
        self.process = None
        self.endpoints = None
        self.pids = []

    def known(self):
        """Not running, but its addresses are known."""
        with self:
            return self

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        self.process = Process("dev", self.argv, self.log, env=self.env)

        def ready():
            assert not self.process.ended(), self.process.text()
            return "Ready:" in self.process.text()

        until(ready, "the cluster is ready", START_SECONDS)
        parts = re.findall(
            r"^(\w+) +(\S+) +pid (\d+)$", self.process.text(), re.MULTILINE
        )
        members = [address for name, address, _ in parts if name != "proxy"]
        assert len(members) == 3, members
        self.endpoints = ",".join(members)
        self.pids = [int(pid) for _, _, pid in parts]

    def stop(self):
        """At once; what etcd has acknowledged is on disk."""
        self.process.popen.kill()
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
        self.process.popen.wait()


# Helpers


def directory(parent, prefix):
    """A new one that every user can enter."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    path.chmod(0o755)
    return path


def until(true, what, seconds):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.05)


def same(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


def is_open(address):
    try:
        socket.create_connection(address, timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def give_to_vcap(root):
    subprocess.run(["chown", "-hR", f"{VCAP}:{VCAP}", root], check=True)
    root.chmod(0o755)


def tree(root):
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[path] = (status.st_mode, status.st_mtime_ns, content)
    return found


def living():
    """The command lines of vcap's processes, in this case's namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = (path / "status").read_text()
            if f"\nUid:\t{VCAP}\t" in status and "\nState:\tZ" not in status:
                found.append((path / "cmdline").read_bytes().decode())
    return [line.replace("\0", " ").strip() for line in found]


# Cases


class Lab:
    """What a case works with. `shared` outlives it, `work` does not."""

    def __init__(self, binary, shared, work):
        self.binary = binary
        self.shared = shared
        self.work = work
        self.ours = shared / "buildpacks/ours"
        self.final = shared / "buildpacks/final"
        self.other = shared / "buildpacks/other"
        said = subprocess.run(
            [binary, "version"], check=True, timeout=30, text=True,
            stdout=subprocess.PIPE,
        ).stdout
        etcd = re.search(r"etcd (\d+)\.(\d+)", said)
        # As the README says: without it, those end after 5 s.
        self.needed_by_etcd = (
            " --advertise-client-url=127.0.0.1:2379"
            if tuple(map(int, etcd.groups())) < (3, 7) else ""
        )

    def write_buildpacks(self, archive):
        unzip(archive, self.ours)
        write_buildpack(self.final, finalize=FINALIZE, release=RELEASE)
        write_buildpack(self.other, supply=SUPPLY_OF_OTHERS)

    def builder(self, fixture, env, buildpacks=()):
        buildpacks = buildpacks or [self.ours, self.final]
        return Builder(self.work, FIXTURES / fixture, buildpacks, env)

    def droplet(self, fixture, env, others=0):
        """Staged once for all cases; with so many more buildpacks."""
        key = json.dumps([fixture, env, others], sort_keys=True)
        droplet = self.shared / hashlib.sha256(key.encode()).hexdigest()
        result = droplet.with_suffix(".json")
        if not result.exists():
            others = [self.other] * others
            order = [*others[:3], self.ours, *others[3:], self.final]
            builder = self.builder(fixture, env, order)
            processes = builder.stage()
            builder.pack(droplet)
            result.write_text(json.dumps(processes))
        return droplet, json.loads(result.read_text())

    def push(
        self, fixture, endpoints, manifest="manifest.yml", unpack="launch",
        others=0, more_sidecars=(), **env,
    ):
        def read(endpoints):
            path = FIXTURES / fixture / manifest
            application = read_manifest(path, endpoints)
            application["env"] |= {"BP_ETCDPROXY_UNPACK": unpack} | env
            for sidecar in application.get("sidecars", []):
                sidecar["command"] += self.needed_by_etcd
            return application

        staged = read(ENDPOINTS_AT_STAGING)["env"]
        application = read(endpoints)
        return Instance(
            self.work, self.droplet(fixture, staged, others),
            application["env"],
            sidecars=[*application.get("sidecars", []), *more_sidecars],
            memory=int(application["memory"].removesuffix("M")),
        )


CASES = {}


def case(title, **arguments):
    def add(function):
        CASES[title.format(**arguments)] = partial(function, **arguments)
        return function
    return add


def refusal(stage):
    try:
        stage()
    except StagingFailed as failure:
        return failure
    raise AssertionError("staging went well")


VIEWS = ["Views: 1\n", "Views: 2\n"]


@case("the zip is what the platform takes")
def the_zip(lab):
    scripts = {"bin/detect", "bin/supply", "bin/compile", "etcdproxy"}
    texts = {"manifest.yml", "VERSION", "README.md", "LICENSE", "NOTICE"}

    def package(*flags):
        made = subprocess.run(
            [lab.binary, "package", *flags], cwd=lab.work, check=True,
            timeout=30, text=True, stdout=subprocess.PIPE,
        )
        return lab.work / made.stdout.splitlines()[-1]

    for stack in (None, "cflinuxfs4"):
        path = package(*(["--stack", stack] if stack else []))
        assert path.parent == lab.work, path
        name = f"etcdproxy_buildpack-cached{f'-{stack}' if stack else ''}"
        found = re.fullmatch(rf"{name}-v(\d+\.\d+\.\d+)\.zip", path.name)
        assert found, path.name
        into = lab.work / (stack or "any")
        unzip(path, into)
        files = {p for p in into.rglob("*") if not p.is_dir()}
        same({str(p.relative_to(into)) for p in files}, scripts | texts)
        for file in files:
            assert not file.is_symlink(), file
            runs = str(file.relative_to(into)) in scripts
            mode = file.stat().st_mode & 0o777
            same((file, mode), (file, 0o755 if runs else 0o644))
        same((into / "VERSION").read_text(), f"{found[1]}\n")
        manifest = yaml.safe_load((into / "manifest.yml").read_text())
        same(manifest.get("stack"), stack)
    again = package("--stack", "cflinuxfs4", "--output", "again.zip")
    assert again.read_bytes() == path.read_bytes(), "not the same bytes"


@case("detect says no")
def detect(lab):
    failure = refusal(lab.builder("rubyapp", {}, [lab.ours]).detect)
    same(failure.code, DETECT_FAILED)


@case("alone, it says how to be used", before=0)
@case("last, it says how to be used", before=1)
def last(lab, before):
    order = [*[lab.other] * before, lab.ours]
    failure = refusal(lab.builder("rubyapp", {}, order).stage)
    same(failure.code, COMPILE_FAILED)
    first, second = failure.output.splitlines()
    assert "supplies etcd to another buildpack" in first, first
    assert "-b etcdproxy_buildpack -b ruby_buildpack" in second, second


DECLARED = {
    "type": "etcd-proxy",
    "command": 'exec "$DEPS_DIR/0/bin/etcdproxy" run --drain "${ETCDPROXY_DRAIN:-8s}"',
    "platforms": {"cloudfoundry": {"sidecar_for": ["web"]}},
}


def bind(lab, how, endpoints, name="my-etcd"):
    """The environment of an app that is bound to such a service."""
    if how == "SERVICE_BINDING_ROOT":
        root = lab.work / "bindings"
        binding = root / name
        binding.mkdir(parents=True, exist_ok=True)
        (binding / "type").write_text("user-provided")
        (binding / "name").write_text(name)
        (binding / "endpoints").write_text(endpoints)
        return {how: str(root)}
    service = {
        "label": "user-provided", "name": name, "tags": [],
        "credentials": {"endpoints": endpoints.split(",")},
    }
    services = json.dumps({"user-provided": [service]})
    if how == "VCAP_SERVICES":
        return {how: services}
    path = lab.work / "services.json"
    path.write_text(services)
    return {how: str(path)}


BINDINGS = ("VCAP_SERVICES", "VCAP_SERVICES_FILE_PATH", "SERVICE_BINDING_ROOT")


@case("a sidecar is declared where it is wanted")
def declared_where_wanted(lab):
    asked = {
        how: {"BP_ETCDPROXY_SIDECAR": how} for how in ("auto", "true", "false")
    }
    endpoints = {"ETCDPROXY_ENDPOINTS": ENDPOINTS_AT_STAGING}
    bound = [bind(lab, how, ENDPOINTS_AT_STAGING) for how in BINDINGS]
    other = bind(lab, "VCAP_SERVICES", "mail.example:25", name="mail")
    wanted = [endpoints, endpoints | asked["auto"], asked["true"], *bound]
    unwanted = [{}, asked["auto"], other]
    unwanted += [env | asked["false"] for env in (endpoints, *bound)]
    for expected, environments in ((DECLARED, wanted), (None, unwanted)):
        for env in environments:
            env |= {"BP_ETCDPROXY_UNPACK": "launch"}
            found = lab.builder("static", env).stage().get("etcd-proxy")
            same((env, found), (env, expected))


@case("a sidecar is declared with what the user asks for")
def declared_as_asked(lab):
    env = {
        "BP_ETCDPROXY_UNPACK": "launch",
        "BP_ETCDPROXY_SIDECAR": "true",
        "BP_ETCDPROXY_SIDECAR_NAME": "store",
        "BP_ETCDPROXY_SIDECAR_FOR": "web,worker",
        "BP_ETCDPROXY_MEMORY": "48",
    }
    found = lab.builder("static", env).stage()["store"]
    same(found, DECLARED | {
        "type": "store",
        "command": DECLARED["command"] + " --memory 48",
        "limits": {"memory": 48},
        "platforms": {"cloudfoundry": {"sidecar_for": ["web", "worker"]}},
    })


@case("static, no sidecar, unpacked at {unpack}", unpack="stage")
@case("static, no sidecar, unpacked at {unpack}", unpack="launch")
def static_alone(lab, unpack):
    env = {"BP_ETCDPROXY_UNPACK": unpack}
    instance = Instance(lab.work, lab.droplet("static", env), env)
    same(instance.sidecars, [])
    instance.start()
    assert "An app without code" in instance.get()
    assert instance.ssh("etcd --version").startswith("etcd Version: ")
    instance.stop()


@case("static, unpacked at {unpack}", unpack="stage")
@case("static, unpacked at {unpack}", unpack="launch")
def static(lab, unpack):
    with Cluster(lab) as cluster:
        instance = lab.push("static", cluster.endpoints, unpack=unpack)
        instance.start()
        assert "An app without code" in instance.get()
        command = 'etcdproxy wait --timeout 10s && echo "$ETCDCTL_ENDPOINTS"'
        same(instance.ssh(command), "127.0.0.1:2379\n")
        # The profile script once more, in a shell that forgives nothing
        (script,) = instance.deps.glob("*/profile.d/etcdproxy.sh")
        same(instance.ssh(f"set -eu; source '{script}'"), "")
        unpacked = [*instance.deps.glob("*/unpacked/*/etcd")]
        assert bool(unpacked) == (unpack == "launch"), unpacked
        instance.stop()


def rubyapp(lab, **how):
    with Cluster(lab) as cluster:
        instance = lab.push("rubyapp", cluster.endpoints, **how)
        same(len(instance.sidecars), 1)
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        instance.stop()


for manifest, unpack, others in itertools.product(
    ("manifest.yml", "manifest-2019.yml"), ("stage", "launch"), (0, 9)
):
    count = "eleven buildpacks" if others else "one buildpack"
    case(
        f"rubyapp, {manifest}, unpacked at {unpack}, {count}",
        manifest=manifest, unpack=unpack, others=others,
    )(rubyapp)


@case("rubyapp, by the tunnel")
def tunnel(lab):
    env = {"BP_ETCDPROXY_MODE": "tunnel"}
    with Cluster(lab) as cluster:
        instance = lab.push("rubyapp", cluster.endpoints, **env)
        programs = [path.name for path in instance.deps.glob("*/bin/*")]
        same(programs, ["etcdproxy"])
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        log = instance.process("etcd-proxy").text()
        assert "the tunnel (pid " in log, log
        instance.ssh("etcdproxy wait --timeout 10s")
        instance.stop()
        same(instance.process("etcd-proxy").popen.returncode, 0)


def bound_rubyapp(lab, how):
    staged = bind(lab, how, ENDPOINTS_AT_STAGING)
    unpack = {"BP_ETCDPROXY_UNPACK": "launch"}
    droplet = lab.droplet("rubyapp", staged | unpack)
    with Cluster(lab) as cluster:
        # The service may have changed since staging.
        env = bind(lab, how, cluster.endpoints) | unpack
        instance = Instance(lab.work, droplet, env)
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        instance.stop()


for how in BINDINGS:
    case(f"rubyapp, bound by {how}", how=how)(bound_rubyapp)


@case("two sidecars want the port, and one stands by")
def two_sidecars(lab):
    # The wait, for neither of them may wait for itself
    second = {"name": "etcdproxy", "command": "etcdproxy run"}
    with Cluster(lab) as cluster:
        instance = lab.push(
            "rubyapp", cluster.endpoints, more_sidecars=[second],
            ETCDPROXY_WAIT="30s",
        )
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        time.sleep(3)  # whoever gives up has done so by then
        same(instance.get(), "Views: 3\n")
        names = [sidecar["name"] for sidecar in instance.sidecars]
        texts = [instance.process(name).text() for name in names]
        fewest = min(texts, key=len)
        assert len(fewest.splitlines()) <= 2, f"not quiet: {fewest}"
        instance.stop()


@case("who stands by takes over")
def stand_by(lab):
    with Cluster(lab) as cluster:
        instance = lab.push("rubyapp", cluster.endpoints)

        def run(name):
            return instance.launch(name, "exec etcdproxy run")

        def end(process):
            process.popen.terminate()
            process.popen.wait(timeout=5)

        first = run("first")
        until(partial(is_open, PROXY), "the proxy listens", START_SECONDS)
        second, third = run("second"), run("third")
        time.sleep(2)
        assert not second.ended(), second.text()
        # SIGTERM reaches who stands by, too
        end(third)
        end(first)
        instance.ssh("etcdproxy wait --timeout 10s")
        assert not second.ended(), second.text()
        end(second)
        assert not living(), living()


@case("web ends first, and the sidecar obeys SIGTERM")
def web_ends_first(lab):
    with Cluster(lab) as cluster:
        instance = lab.push("rubyapp", cluster.endpoints)
        instance.start()
        instance.get()
        instance.process("web").popen.kill()
        instance.check_end(first="web")


@case("the sidecar serves on while the app drains")
def serves_on(lab):
    with Cluster(lab) as cluster:
        instance = lab.push("rubyapp", cluster.endpoints)
        # A client that stays connected, and needs etcd 2 s after SIGTERM.
        instance.web = """
            etcdproxy wait --timeout 10s
            exec 3<>/dev/tcp/127.0.0.1/2379
            trap 'sleep 2; etcdproxy health; exit' TERM
            : >../connected
            while :; do sleep 0.1; done
        """
        instance.start()
        connected = instance.vcap / "connected"
        until(connected.exists, "the client is connected", START_SECONDS)
        instance.stop()
        same(instance.process("web").text(), "127.0.0.1:2379 is ready\n")
        same(instance.process("etcd-proxy").popen.returncode, 0)


@case("the cluster comes late, and the app is served")
def late_cluster(lab):
    cluster = Cluster(lab).known()
    instance = lab.push("rubyapp", cluster.endpoints)
    instance.start()
    until(instance.serves, "web listens", START_SECONDS)
    with cluster:
        same([instance.get(), instance.get()], VIEWS)
        instance.stop()


@case("ETCDPROXY_WAIT: web starts when the cluster answers, {manifest}",
      manifest="manifest.yml")
@case("ETCDPROXY_WAIT: web starts when the cluster answers, {manifest}",
      manifest="manifest-2019.yml")
def web_waits(lab, manifest):
    cluster = Cluster(lab).known()
    instance = lab.push(
        "rubyapp", cluster.endpoints, manifest, ETCDPROXY_WAIT="30s"
    )
    instance.start()
    until(partial(is_open, PROXY), "the proxy listens", START_SECONDS)
    time.sleep(2)
    assert not instance.serves(), "web did not wait"
    with cluster:
        same([instance.get(), instance.get()], VIEWS)
        log = instance.process("web").text()
        assert "does not answer yet" not in log, log
        instance.stop()


@case("ETCDPROXY_WAIT: web starts in the end without a proxy")
def web_waits_in_vain(lab):
    env = {"BP_ETCDPROXY_UNPACK": "stage"}
    droplet = lab.droplet("static", env)
    instance = Instance(lab.work, droplet, env | {"ETCDPROXY_WAIT": "2s"})
    started = time.monotonic()
    instance.start()
    assert "An app without code" in instance.get()
    took = time.monotonic() - started
    assert 2 <= took < 12, f"{took:.1f} s"
    instance.stop()


@case("ETCDPROXY_WAIT: a task does not wait")
def task_does_not_wait(lab):
    instance = lab.push("rubyapp", "127.0.0.1:1", ETCDPROXY_WAIT="30s")
    task = instance.launch("task", "echo done", process_type=None)
    task.end(0, seconds=5)
    same(task.text(), "done\n")


@case("ETCDPROXY_WAIT: a session of {by} {command} does not wait",
      by="shell", command="bash")
@case("ETCDPROXY_WAIT: a session of {by} {command} does not wait",
      by="shell", command="rackup --version")
@case("ETCDPROXY_WAIT: a session of {by} {command} does not wait",
      by="launcher", command="bash")
def session_does_not_wait(lab, by, command):
    instance = lab.push("rubyapp", "127.0.0.1:1", ETCDPROXY_WAIT="30s")
    # As sshd has it: with the environment of web
    session = instance.launch("ssh", command, by=by)
    session.end(0, seconds=5)


# Running them


def run_here(binary, shared, work, name):
    """One case, in the namespaces that `run_apart` made."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    try:
        CASES[name](Lab(binary, shared, work))
    except BaseException:
        for log in sorted(work.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()
            print(f"== {log.name}", *lines[-20:], sep="\n")
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)


def run_apart(binary, shared, name):
    """What the case printed, when it failed."""
    work = directory(shared, "case-")
    argv = [
        "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
        sys.executable, __file__, "case", binary, shared, work, name,
    ]
    env = {"PATH": f"/usr/sbin:/sbin:{SYSTEM_PATH}"}
    output = work / "output"
    try:
        with open(output, "wb") as out:
            done = subprocess.run(
                argv, env=env, timeout=CASE_SECONDS,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )
        return None if done.returncode == 0 else output.read_text()
    except subprocess.TimeoutExpired:
        return f"{output.read_text()}not done after {CASE_SECONDS} s"
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run_all(archive, binary, shared, words):
    shared.chmod(0o755)
    Lab(binary, shared, None).write_buildpacks(archive)
    passed = failed = 0
    for name in CASES:
        if words and not any(word in name for word in words):
            continue
        started = time.monotonic()
        problem = run_apart(binary, shared, name)
        took = time.monotonic() - started
        print("FAILED" if problem else "ok", f"{name} ({took:.1f} s)")
        if problem:
            print(*(f"    {line}" for line in problem.splitlines()), sep="\n")
            failed += 1
        else:
            passed += 1
        sys.stdout.flush()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def main():
    if sys.argv[1] == "case":
        *paths, name = sys.argv[2:]
        run_here(*map(Path, paths), name)
        return
    archive, binary, shared = (Path(arg).absolute() for arg in sys.argv[1:4])
    # So that `subprocess.run` ends its child, and that one's namespace.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(run_all(archive, binary, shared, sys.argv[4:]))


if __name__ == "__main__":
    main()
