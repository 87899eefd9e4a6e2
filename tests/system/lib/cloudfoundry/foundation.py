"""What a test uses: stage and push apps."""

import hashlib
import json
import re
from pathlib import Path

import yaml

from lib.cloudfoundry import buildpacks
from lib.cloudfoundry.container import Container
from lib.cloudfoundry.staging import Builder
from lib.lab import Lab, Programs
from lib.processes import output

FIXTURES = Path(__file__).absolute().parents[4] / "fixtures"
# Nobody listens at this address, so a launch that still uses it fails.
ENDPOINTS_AT_STAGING = "192.0.2.1:2379"


class Foundation(Lab):
    """A lab with buildpacks. Its droplets stay in `work.parent`, for later labs."""

    def __init__(self, binary, work):
        super().__init__(Programs(binary, client=None), work)
        self.shared = work.parent
        self.ours = self.shared / "buildpacks/ours"
        self.final = self.shared / "buildpacks/final"
        self.other = self.shared / "buildpacks/other"

    def write_buildpacks(self, archive):
        """Once for all labs; `archive` is our zip."""
        buildpacks.unzip(archive, self.ours)
        buildpacks.write_final(self.final)
        buildpacks.write_supplying(self.other)

    def builder(self, fixture, env, buildpacks=()) -> Builder:
        order = buildpacks or [self.ours, self.final]
        return Builder(self.work, FIXTURES / fixture, order, env)

    def droplet(self, fixture, env, others=0):
        """The archive and its processes, staged once. `others` buildpacks supply as well."""
        key = json.dumps([fixture, env, others], sort_keys=True)
        droplet = self.shared / hashlib.sha256(key.encode()).hexdigest()
        result = droplet.with_suffix(".json")
        if not result.exists():
            others = [self.other] * others
            builder = self.builder(fixture, env, [*others[:3], self.ours, *others[3:], self.final])
            processes = builder.stage()
            builder.pack(droplet)
            result.write_text(json.dumps(processes))
        return droplet, json.loads(result.read_text())

    def push(
        self, fixture, endpoints, manifest="manifest.yml", unpack="launch",
        others=0, more_sidecars=(), **env,
    ) -> Container:
        """Stage and unpack the app of a manifest. It sees other endpoints at staging."""
        path = FIXTURES / fixture / manifest
        own = {"BP_ETCDPROXY_UNPACK": unpack} | env
        staged = read_manifest(path, ENDPOINTS_AT_STAGING)
        pushed = read_manifest(path, endpoints)
        sidecars = pushed.get("sidecars", [])
        for sidecar in sidecars:
            sidecar["command"] += self.flag_for_old_etcd()
        return Container(
            self.work, self.droplet(fixture, staged["env"] | own, others), pushed["env"] | own,
            sidecars=[*sidecars, *more_sidecars],
            memory_mb=int(pushed["memory"].removesuffix("M")),
        )

    def flag_for_old_etcd(self) -> str:
        """docs/cloud-foundry.md explains it: without this flag, etcd's proxy before 3.7 ends after 5 s."""
        version = output(self.programs.binary, "version")
        etcd = re.search(r"etcd (\d+)\.(\d+)", version)
        is_old = tuple(map(int, etcd.groups())) < (3, 7)
        return " --advertise-client-url=127.0.0.1:2379" if is_old else ""


def read_manifest(path, endpoints):
    """The only application of the manifest, pushed with these endpoints."""
    text = path.read_text().replace("((etcd_endpoints))", endpoints)
    (application,) = yaml.safe_load(text)["applications"]
    env = application.get("env", {})
    application["env"] = {
        name: json.dumps(value) if isinstance(value, bool) else str(value)
        for name, value in env.items()
    }
    return application
