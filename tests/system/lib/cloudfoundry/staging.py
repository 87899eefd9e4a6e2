"""The builder: from an app to a droplet."""

import contextlib
import os
import re
import shutil
import subprocess

import yaml

from lib.cloudfoundry.vcap import VCAP, environment, give_to_vcap, new_directory, vcap_processes

STAGING_SECONDS = 30
# The exit codes of the platform's builder
DETECT_FAILED, COMPILE_FAILED, RELEASE_FAILED, SUPPLY_FAILED = range(222, 226)


class StagingFailed(Exception):
    def __init__(self, code, output):
        super().__init__(f"staging failed with code {code}: {output}")
        self.code = code
        self.output = output


class Builder:
    """Stages one app with a list of buildpacks; the last one is the final buildpack."""

    def __init__(self, work, app, buildpacks, env):
        # Each staging has random paths, because the launch has other paths as well.
        self.root = new_directory(work, "staging-")
        self.build = self.root / "app"
        self.cache = self.root / "cache"
        self.contents = self.root / "contents"
        self.deps = self.contents / "deps"
        self.profile = self.contents / "profile.d"
        self.home = self.root / "home"
        self.tmp = self.root / "tmp"
        self.buildpacks = buildpacks
        digits = len(str(len(buildpacks)))
        self.indexes = [str(number).zfill(digits) for number in range(len(buildpacks))]
        shutil.copytree(app, self.build)
        for index in self.indexes:
            (self.deps / index).mkdir(parents=True)
            (self.cache / index).mkdir(parents=True)
        for path in (self.profile, self.home, self.tmp):
            path.mkdir()
        give_to_vcap(self.root)
        self.env = environment(256, env) | {
            "CF_STACK": "cflinuxfs4", "HOME": str(self.home), "TMPDIR": str(self.tmp)
        }

    def run(self, failure_code, buildpack, script, *args) -> str:
        """Run a buildpack's script without network. Return its stdout."""
        done = subprocess.run(
            [
                "unshare", "--net", "setpriv", f"--reuid={VCAP}", f"--regid={VCAP}",
                "--clear-groups", "--no-new-privs", "--", buildpack / "bin" / script, *args,
            ],
            env=self.env, cwd=self.home, timeout=STAGING_SECONDS, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        print(f"== {script}", *args, f": {done.returncode}")
        print(done.stdout + done.stderr, end="")
        left = vcap_processes()
        assert not left, f"{script} left processes: {left}"
        if done.returncode != 0:
            raise StagingFailed(failure_code, done.stdout + done.stderr)
        return done.stdout

    def detect(self):
        """The buildpack for an app that names none: the first one that accepts it."""
        for buildpack in self.buildpacks:
            with contextlib.suppress(StagingFailed):
                self.run(DETECT_FAILED, buildpack, "detect", self.build)
                return buildpack
        raise StagingFailed(DETECT_FAILED, "no buildpack accepts the app")

    def stage(self):
        """Run all buildpacks. Return the processes that they declare."""
        self.supply_and_finalize()
        return self.processes()

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
                assert path.exists(), f"the target of {path} is missing"
            elif path.is_dir():
                assert path.name != "lib" or any(path.iterdir()), path
            else:
                baked = bytes(self.root) in path.read_bytes()
                assert not baked, f"{path} contains the staging directory's path"

    def processes(self):
        """Each process type and its declaration: launch.yml, release, Procfile."""
        processes = {}
        count = len(self.buildpacks)
        for number in range(count):
            # The platform's builder does not pad this number either.
            launch = self.deps / str(number) / "launch.yml"
            if launch.exists():
                declared = yaml.safe_load(launch.read_text())["processes"]
                processes |= {process["type"]: process for process in declared}
        if not (self.deps / str(count - 1) / "launch.yml").exists():
            release = self.run(RELEASE_FAILED, self.buildpacks[-1], "release", self.build)
            processes |= commands(yaml.safe_load(release)["default_process_types"])
        procfile = self.build / "Procfile"
        if procfile.exists():
            processes |= commands(yaml.safe_load(procfile.read_text()))
        return processes

    def pack(self, droplet):
        """Make the droplet like the platform."""
        self.build.rename(self.contents / "app")
        for name in ("tmp", "logs"):
            (self.contents / name).mkdir()
        subprocess.run(
            ["tar", "-czf", droplet, "-C", self.contents, "."], check=True, timeout=STAGING_SECONDS
        )


def commands(types):
    return {name: {"type": name, "command": command} for name, command in types.items()}


def tree(root):
    """Mode, time and content of each path."""
    found = {}
    for path in [root, *root.rglob("*")]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[path] = (status.st_mode, status.st_mtime_ns, content)
    return found
