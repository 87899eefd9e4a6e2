"""The buildpack on a small Cloud Foundry: the cases of scripts/integration.sh.

usage: lifecycle.py ZIP BINARY SCRATCH_DIR [WORD...]

Stages the fixtures with the packaged buildpack and launches them like the
platform. Each case has its own network and its own process namespace. With
words, it runs only the cases with one of them in their names.
"""

import itertools
import json
import re
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import yaml

from lib.cases import Cases
from lib.checks import same, until
from lib.cloudfoundry.buildpacks import unzip
from lib.cloudfoundry.container import START_SECONDS, Container
from lib.cloudfoundry.foundation import ENDPOINTS_AT_STAGING, Foundation
from lib.cloudfoundry.staging import COMPILE_FAILED, DETECT_FAILED, StagingFailed
from lib.cloudfoundry.vcap import SYSTEM_PATH, vcap_processes
from lib.members import three_members
from lib.ports import is_open
from lib.processes import exit_on_signals, output

CASE_SECONDS = 60
PROXY = ("127.0.0.1", 2379)
BINDINGS = ("VCAP_SERVICES", "VCAP_SERVICES_FILE_PATH", "SERVICE_BINDING_ROOT")
VIEWS = ["Views: 1\n", "Views: 2\n"]  # what rubyapp answers at first
DECLARED = {
    "type": "etcd-proxy",
    "command": 'exec "$DEPS_DIR/0/bin/etcdproxy" run --drain "${ETCDPROXY_DRAIN:-8s}"',
    "platforms": {"cloudfoundry": {"sidecar_for": ["web"]}},
}

case = Cases()


@case("the zip is what the platform takes")
def the_zip(lab):
    programs = {"bin/detect", "bin/build", "bin/supply", "bin/compile", "etcdproxy"}
    texts = {"manifest.yml", "buildpack.toml", "VERSION", "README.md", "LICENSE", "NOTICE"}

    def package(*flags):
        made = output(lab.programs.binary, "package", *flags, cwd=lab.work)
        return lab.work / made.splitlines()[-1]

    for stack in (None, "cflinuxfs4"):
        path = package(*(["--stack", stack] if stack else []))
        assert path.parent == lab.work, path
        name = f"etcdproxy_buildpack-cached{f'-{stack}' if stack else ''}"
        found = re.fullmatch(rf"{name}-v(\d+\.\d+\.\d+)\.zip", path.name)
        assert found, path.name
        into = lab.work / (stack or "any")
        unzip(path, into)
        files = {p for p in into.rglob("*") if not p.is_dir()}
        same({str(p.relative_to(into)) for p in files}, programs | texts)
        for file in files:
            assert not file.is_symlink(), file
            runs = str(file.relative_to(into)) in programs
            mode = file.stat().st_mode & 0o777
            same((file, mode), (file, 0o755 if runs else 0o644))
        same((into / "VERSION").read_text(), f"{found[1]}\n")
        manifest = yaml.safe_load((into / "manifest.yml").read_text())
        same(manifest.get("stack"), stack)
    again = package("--stack", "cflinuxfs4", "--output", "again.zip")
    assert again.read_bytes() == path.read_bytes(), "not the same bytes"


def staging_failure(stage):
    try:
        stage()
    except StagingFailed as failure:
        return failure
    raise AssertionError("staging succeeded")


@case("detect rejects every app")
def detect(lab):
    failure = staging_failure(lab.builder("rubyapp", {}, [lab.ours]).detect)
    same(failure.code, DETECT_FAILED)


@case("as the only buildpack, it explains its use", before=0)
@case("as the last buildpack, it explains its use", before=1)
def last(lab, before):
    order = [*[lab.other] * before, lab.ours]
    failure = staging_failure(lab.builder("rubyapp", {}, order).stage)
    same(failure.code, COMPILE_FAILED)
    first, second = failure.output.splitlines()
    assert "supplies etcd to another buildpack" in first, first
    assert "-b etcdproxy_buildpack -b ruby_buildpack" in second, second


def bind(lab, how, endpoints, name="my-etcd"):
    """The environment of an app that is bound to a service of this name."""
    if how == "SERVICE_BINDING_ROOT":
        root = lab.work / "bindings"
        binding = root / name
        binding.mkdir(parents=True, exist_ok=True)
        (binding / "type").write_text("user-provided")
        (binding / "name").write_text(name)
        (binding / "endpoints").write_text(endpoints)
        return {how: str(root)}
    credentials = {"endpoints": endpoints.split(",")}
    service = {"label": "user-provided", "name": name, "tags": [], "credentials": credentials}
    services = json.dumps({"user-provided": [service]})
    if how == "VCAP_SERVICES":
        return {how: services}
    path = lab.work / "services.json"
    path.write_text(services)
    return {how: str(path)}


@case("supply declares a sidecar only if one is wanted")
def declared_where_wanted(lab):
    asked = {how: {"BP_ETCDPROXY_SIDECAR": how} for how in ("auto", "true", "false")}
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


@case("supply declares the sidecar with the user's options")
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
    instance = Container(lab.work, lab.droplet("static", env), env)
    same(instance.sidecars, [])
    instance.start()
    assert "An app without code" in instance.get()
    assert instance.ssh("etcd --version").startswith("etcd Version: ")
    instance.stop()


@case("static, unpacked at {unpack}", unpack="stage")
@case("static, unpacked at {unpack}", unpack="launch")
def static(lab, unpack):
    with three_members(lab) as cluster:
        instance = lab.push("static", cluster.endpoints, unpack=unpack)
        instance.start()
        assert "An app without code" in instance.get()
        # The address is etcdctl's default, and etcdctl refuses to have both the variable and --endpoints.
        command = 'etcdproxy wait --timeout 10s && echo "${ETCDCTL_ENDPOINTS-unset}"'
        same(instance.ssh(command), "unset\n")
        # The profile script must also work in a strict shell.
        (script,) = instance.deps.glob("*/profile.d/etcdproxy.sh")
        same(instance.ssh(f"set -eu; source '{script}'"), "")
        unpacked = [*instance.deps.glob("*/unpacked/*/etcd")]
        assert bool(unpacked) == (unpack == "launch"), unpacked
        instance.stop()


def rubyapp(lab, **how):
    with three_members(lab) as cluster:
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


@case("rubyapp, through native")
def native(lab):
    env = {"BP_ETCDPROXY_MODE": "native"}
    with three_members(lab) as cluster:
        instance = lab.push("rubyapp", cluster.endpoints, **env)
        programs = {path.name: path.is_symlink() for path in instance.deps.glob("*/bin/*")}
        same(programs, {"etcd": True, "etcdproxy": False})
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        log = instance.process("etcd-proxy").text()
        assert "the proxy (pid " in log, log
        instance.ssh("etcdproxy wait --timeout 10s")
        instance.stop()
        same(instance.process("etcd-proxy").popen.returncode, 0)


@case("a droplet without etcd serves the manifest's own etcdproxy run, and a task")
def without_etcd(lab):
    env = {"BP_ETCDPROXY_MODE": "native", "BP_ETCDPROXY_SIDECAR": "false"}
    with three_members(lab) as cluster:
        own = {"name": "own", "command": "etcdproxy run"}
        instance = lab.push("rubyapp", cluster.endpoints, more_sidecars=[own], **env)
        task = instance.launch("task", "etcdproxy exec -- etcdproxy health", process_type=None)
        task.expect_exit(0, seconds=15)
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        log = instance.process("own").text()
        assert "mode native: this launcher has no etcd" in log, log
        instance.stop()
        old = instance.launch("old", "etcd grpc-proxy start --endpoints=h:1")
        old.expect_exit(78, seconds=5)
        assert "this launcher has no etcd" in old.text(), old.text()


def bound_rubyapp(lab, how):
    staged = bind(lab, how, ENDPOINTS_AT_STAGING)
    unpack = {"BP_ETCDPROXY_UNPACK": "launch"}
    droplet = lab.droplet("rubyapp", staged | unpack)
    with three_members(lab) as cluster:
        # The service can change between staging and launch.
        env = bind(lab, how, cluster.endpoints) | unpack
        instance = Container(lab.work, droplet, env)
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        instance.stop()


for how in BINDINGS:
    case(f"rubyapp, bound by {how}", how=how)(bound_rubyapp)


@case("of two sidecars, one gets the port and one stands by")
def two_sidecars(lab):
    second = {"name": "etcdproxy", "command": "etcdproxy run"}
    with three_members(lab) as cluster:
        # ETCDPROXY_WAIT: the sidecars themselves must not wait.
        instance = lab.push(
            "rubyapp", cluster.endpoints, more_sidecars=[second], ETCDPROXY_WAIT="30s"
        )
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        time.sleep(3)  # long enough for a sidecar to give up
        same(instance.get(), "Views: 3\n")
        names = [sidecar["name"] for sidecar in instance.sidecars]
        texts = [instance.process(name).text() for name in names]
        fewest = min(texts, key=len)
        assert len(fewest.splitlines()) <= 2, f"not quiet: {fewest}"
        instance.stop()


@case("the sidecar that stands by takes over")
def stand_by(lab):
    with three_members(lab) as cluster:
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
        # SIGTERM also ends a sidecar that stands by.
        end(third)
        end(first)
        instance.ssh("etcdproxy wait --timeout 10s")
        assert not second.ended(), second.text()
        end(second)
        same(vcap_processes(), [])


@case("web ends first, and the sidecar obeys SIGTERM")
def web_ends_first(lab):
    with three_members(lab) as cluster:
        instance = lab.push("rubyapp", cluster.endpoints)
        instance.start()
        instance.get()
        instance.process("web").popen.kill()
        instance.check_end(first="web")


@case("the sidecar keeps serving while the app drains")
def keeps_serving(lab):
    with three_members(lab) as cluster:
        instance = lab.push("rubyapp", cluster.endpoints)
        # A client that stays connected, and still needs etcd 2 s after SIGTERM.
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


@case("the cluster starts late, and the app works")
def late_cluster(lab):
    cluster = three_members(lab)
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
    cluster = three_members(lab)
    instance = lab.push("rubyapp", cluster.endpoints, manifest, ETCDPROXY_WAIT="30s")
    instance.start()
    until(partial(is_open, PROXY), "the proxy listens", START_SECONDS)
    time.sleep(2)
    assert not instance.serves(), "web did not wait"
    with cluster:
        same([instance.get(), instance.get()], VIEWS)
        log = instance.process("web").text()
        assert "does not answer yet" not in log, log
        instance.stop()


@case("ETCDPROXY_WAIT: a sidecar that is a script does not wait for itself")
def script_does_not_wait(lab):
    env = {"BP_ETCDPROXY_SIDECAR": "false", "ETCDPROXY_WAIT": "30s"}
    with three_members(lab) as cluster:
        own = {"name": "own", "command": "./proxy.sh"}
        instance = lab.push("rubyapp", cluster.endpoints, more_sidecars=[own], **env)
        script = instance.app / "proxy.sh"
        script.write_text("#!/bin/sh\nexec etcdproxy run\n")
        script.chmod(0o755)
        started = time.monotonic()
        instance.start()
        same([instance.get(), instance.get()], VIEWS)
        took = time.monotonic() - started
        assert took < 20, f"{took:.1f} s"
        instance.stop()


@case("ETCDPROXY_WAIT: without a proxy, web starts after the wait")
def web_waits_in_vain(lab):
    env = {"BP_ETCDPROXY_UNPACK": "stage"}
    droplet = lab.droplet("static", env)
    instance = Container(lab.work, droplet, env | {"ETCDPROXY_WAIT": "2s"})
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
    task.expect_exit(0, seconds=5)
    same(task.text(), "done\n")


@case("ETCDPROXY_WAIT: a session of {by} {command} does not wait",
      by="shell", command="bash")
@case("ETCDPROXY_WAIT: a session of {by} {command} does not wait",
      by="shell", command="rackup --version")
@case("ETCDPROXY_WAIT: a session of {by} {command} does not wait",
      by="launcher", command="bash")
def session_does_not_wait(lab, by, command):
    instance = lab.push("rubyapp", "127.0.0.1:1", ETCDPROXY_WAIT="30s")
    # sshd gives it the environment of web.
    session = instance.launch("ssh", command, by=by)
    session.expect_exit(0, seconds=5)


def run_here(binary, work, name):
    """Run one case, in the namespaces that `run_apart` has made."""
    output("ip", "link", "set", "lo", "up")
    with Foundation(binary, work) as lab:
        case.functions[name](lab)


def run_apart(binary, shared, number, name) -> bool:
    """Run one case in new namespaces; print its output if it fails."""
    log = shared / f"case-{number}.log"
    argv = [
        "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
        sys.executable, "-B", __file__, "case", binary, shared / f"case-{number}", name,
    ]
    env = {"PATH": f"/usr/sbin:/sbin:{SYSTEM_PATH}"}
    with open(log, "wb") as out:
        try:
            code = subprocess.run(
                argv, env=env, timeout=CASE_SECONDS,
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"not done after {CASE_SECONDS} s"
    if code:
        print(textwrap.indent(f"{log.read_text()}== end: {code}", "    "))
    return not code


def main():
    if sys.argv[1] == "case":
        run_here(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
        return
    archive, binary, shared = (Path(arg).absolute() for arg in sys.argv[1:4])
    exit_on_signals()
    shared.chmod(0o755)
    Foundation(binary, shared / "none").write_buildpacks(archive)
    sys.exit(case.run(sys.argv[4:], partial(run_apart, binary, shared)))


if __name__ == "__main__":
    main()
