"""The installed service on a Debian with systemd: the cases of scripts/service.sh.

usage: service.py BINARY OTHER_BINARY CLIENT SCRATCH_DIR IMAGE [WORD...]

Boots IMAGE, a bare root file system, in a container for each case and installs
etcdproxy there like a user. OTHER_BINARY is another version. With words, it
runs only the cases with one of them in their names. Needs root.
"""

import contextlib
import os
import re
import shlex
import shutil
import sys
import time
import traceback
from functools import partial
from pathlib import Path

from lib.cases import Cases, matching
from lib.checks import same, until
from lib.lab import Lab, Programs
from lib.load import Load
from lib.members import NUMBERS, Cluster, Member, three_members
from lib.pki import Authority
from lib.processes import exit_on_signals, output
from lib.systemd import CannotBoot, Host, system_bus

GUIDE = Path(__file__).absolute().parents[2] / "docs/air-gapped.md"
PROXY = "http://127.0.0.1:2379"
ENV_FILE = "/etc/etcdproxy/etcdproxy.env"
ADDRESSES = [f"10.0.0.{number}:2379" for number in NUMBERS]  # as in the guide
ENDPOINTS = ",".join(ADDRESSES)
MOST_EXPOSED = 1.5  # of systemd-analyze security; the unit that etcd ships has 9.2
CANNOT_BOOT = 75  # exit code of a case

case = Cases()


def start_members(lab, **options):
    """Start members at the addresses that the guide uses."""
    pairs = zip(NUMBERS, ADDRESSES)
    Cluster([Member(lab, number, address, **options) for number, address in pairs]).start()


def configure(host, *lines):
    """Replace the settings file."""
    (host.root / ENV_FILE[1:]).write_text("\n".join(lines) + "\n")


def install(host, lab, *lines):
    """Install the binary; add these lines to the settings."""
    host.put(lab.programs.binary)
    host.call("./etcdproxy install --enable")
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}", *lines)


def commands():
    """The commands in the guide, each with the output it shows."""
    found = []
    for block in re.findall(r"^```\n(.*?)^```$", GUIDE.read_text(), re.M | re.S):
        for line in block.splitlines():
            if line.startswith("host# "):
                command = line.removeprefix("host# ").split("   #")[0]
                found.append((command.strip(), []))
            elif found:
                found[-1][1].append(line)
    return found


def list_files(host):
    return set(host.call("find /etc /opt /usr /var/cache").splitlines())


def shape(text):
    """The text without the parts that differ from host to host."""
    text = re.sub(r"\d+\.\d+\.\d+-[0-9a-f]{12}", "VERSION", text)
    text = re.sub(r"with etcd [\d.]+", "with etcd VERSION", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME", text)
    text = re.sub(r"sha256 [0-9a-f]{64}", "sha256 HASH", text)
    return re.sub(r"process [\d, ]+", "process PID", text)


@case("the guide to air-gapped hosts, word for word")
def chapter(host, lab, other):
    start_members(lab)
    before = list_files(host)
    host.put(lab.programs.binary)
    host.put(other, "etcdproxy-new")
    typed = commands()
    assert len(typed) >= 8, typed
    for command, shown in typed:
        printed = host.call(command).splitlines()
        for line in shown:
            if line != "…":
                problem = f"{command}: {line!r} is not in {printed}"
                assert shape(line) in map(shape, printed), problem
    same(list_files(host) ^ before, set())


@case("the sandbox is strict, and systemd verifies the unit without a warning")
def sandbox(host, lab, _):
    install(host, lab)
    for lines in ((), ("ETCDPROXY_CACERT=/etc/ssl/ca.pem",)):
        configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}", *lines)
        host.call("etcdproxy install")
        text = host.call("systemd-analyze security --offline=true etcdproxy.service")
        exposed = float(re.search(r"exposure level .*: ([\d.]+) ", text)[1])
        print(f"    systemd-analyze security: {exposed}")
        assert exposed <= MOST_EXPOSED, text
        same(host.call("systemd-analyze verify etcdproxy.service"), "")
    host.call("etcdproxy uninstall --purge && ./etcdproxy install --user --systemd")
    unit = "/root/.config/systemd/user/etcdproxy.service"
    verify = f"XDG_RUNTIME_DIR=/tmp systemd-analyze --user verify {unit}"
    same(host.call(verify), "")


@case("it serves, restarts, survives crashes, and stops")
def lives(host, lab, _):
    start_members(lab)
    for mode, name in (("grpc-proxy", "etcd"), ("native", "etcdproxy")):
        install(host, lab, f"ETCDPROXY_MODE={mode}")
        printed = host.call("etcdproxy install --start")
        assert printed.endswith("the service is started\n"), printed
        same(host.call("etcdproxy health"), "127.0.0.1:2379 is ready\n")
        # It is the process that systemd has started, with a user of its own.
        pid = host.property("MainPID")
        same(host.call(f"cat /proc/{pid}/comm").strip(), name)
        user = host.call(f"stat -c %u /proc/{pid}").strip()
        assert 61184 <= int(user) <= 65519, f"uid {user} is not a dynamic one"
        # SIGQUIT crashes a Go program; SIGKILL is how the kernel ends one that needs memory.
        for number in ("QUIT", "KILL"):
            gone = ("0", host.property("MainPID"))
            host.call(f"kill -{number} {gone[1]}")
            until(lambda gone=gone: host.property("MainPID") not in gone, "it is back")
            host.call("etcdproxy wait --timeout 10s")
        host.call("etcdproxy wait --timeout 10s")
        host.call("systemctl restart etcdproxy && etcdproxy health")
        host.call("systemctl stop etcdproxy")
        host.fails("etcdproxy health", 69)
        same((mode, host.property("Result")), (mode, "success"))


@case("it can listen only where its settings say")
def ports(host, lab, _):
    start_members(lab)
    install(host, lab, "ETCDPROXY_LISTEN_ADDR=127.0.0.1:4001")
    host.call("etcdproxy install --start")
    host.call("etcdproxy health --listen-addr 127.0.0.1:4001")
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}", "ETCDPROXY_LISTEN_ADDR=127.0.0.1:4002")
    printed = host.call("systemctl restart etcdproxy; echo $?", check=False)
    if printed.splitlines()[-1] == "0":
        # systemd restricts ports with BPF, and ignores the setting where BPF is missing.
        print("    SKIPPED: ports cannot be restricted in this container")
    host.call("systemctl reset-failed etcdproxy; etcdproxy install --start")
    host.call("etcdproxy health --listen-addr 127.0.0.1:4002")


@case("certificates that only root can read")
def certificates(host, lab, _):
    pki = host.root / "etc/pki"
    pki.mkdir(mode=0o700)
    ca = Authority(lab.work)
    start_members(lab, ca=ca, flags=("--client-cert-auth", "--trusted-ca-file", ca.cert))
    endpoints = ",".join(f"https://{address}" for address in ADDRESSES)
    # etcd's proxy rejects a client certificate with a common name.
    for mode, subject in (("grpc-proxy", "/O=etcdproxy"), ("native", "/CN=app")):
        for file in (ca.cert, *ca.issue("client", "DNS:client", subject)):
            shutil.copy(file, pki)
            (pki / file.name).chmod(0o600)
        install(
            host, lab, f"ETCDPROXY_ENDPOINTS={endpoints}", f"ETCDPROXY_MODE={mode}",
            "ETCDPROXY_CACERT=/etc/pki/ca.pem", "ETCDPROXY_CERT=/etc/pki/client.pem",
            "ETCDPROXY_KEY=/etc/pki/client.key",
        )
        host.call("etcdproxy install --start")
        same(host.call("etcdproxy health"), "127.0.0.1:2379 is ready\n")
        pid = host.property("MainPID")
        command = host.call(f"cat /proc/{pid}/cmdline")
        assert "BEGIN" not in command, command


@case("it waits for a late cluster, and fails at once on a bad setting")
def late(host, lab, _):
    # Mode native without a member listens, but is not ready.
    install(host, lab, "ETCDPROXY_MODE=native")
    host.call("systemctl start --no-block etcdproxy")
    host.call("etcdproxy wait --listening --timeout 10s")
    same(host.property("ActiveState"), "activating")
    install(host, lab)
    host.call("etcdproxy install --start")
    host.fails("etcdproxy health", 69)
    start_members(lab)
    host.call("etcdproxy wait --timeout 30s")
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}", "ETCDPROXY_MODE=fast")
    host.fails("systemctl restart etcdproxy", 1)
    time.sleep(3)
    same((host.property("ActiveState"), host.property("NRestarts")), ("failed", "0"))
    assert "ETCDPROXY_MODE: invalid mode \"fast\"" in host.call("journalctl -u etcdproxy")
    # `install --start` does its work even when nobody reads its output.
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}", "ETCDPROXY_LISTEN_ADDR=127.0.0.1:4001")
    host.call("etcdproxy install --start | true; etcdproxy wait --listen-addr 127.0.0.1:4001")
    same(host.property("NeedDaemonReload"), "no")
    host.call("etcdproxy install --no-systemd")
    host.fails("systemctl is-active --quiet etcdproxy", 3)
    host.call("etcdproxy install")
    configure(host, "")
    printed = host.fails("etcdproxy install --start", 78)
    assert f"set ETCDPROXY_ENDPOINTS in {ENV_FILE}" in printed, printed


@case("it starts at boot")
def boot(host, lab, _):
    install(host, lab)
    host.shut_down()
    host.boot()
    start_members(lab)
    host.call("etcdproxy wait --timeout 30s")
    host.call("etcdproxy verify")


@case("an upgrade of a live service loses no acknowledged write")
def upgrade(host, lab, other):
    start_members(lab)
    host.put(other)
    host.call("./etcdproxy install")
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}")
    host.call("etcdproxy install --start")
    before = host.call("etcd --version").splitlines()[0]
    load = Load(lab, PROXY)
    load.settle()
    host.put(lab.programs.binary, "etcdproxy-new")
    printed = host.call("./etcdproxy-new install")
    assert "to update it: systemctl restart etcdproxy.service" in printed, printed
    assert load.runs_for(1), "the old version still serves"
    host.call("systemctl restart etcdproxy.service")
    assert load.runs_for(2), "the client still works"
    after = host.call("etcd --version").splitlines()[0]
    print(f"    {before}, then {after}")
    assert before != after, after
    host.call("etcdproxy rollback && systemctl restart etcdproxy")
    assert load.runs_for(2), "the client still works"
    host.call("./etcdproxy-new install --start")
    assert load.runs_for(2), "the client still works"
    report = load.stop()
    losses = {name: report[name] for name in ("lost_writes", "lost_events")}
    assert not any(losses.values()), losses
    host.call("etcdproxy uninstall --purge")
    host.fails("systemctl cat etcdproxy.service >/dev/null", 1)


def run_here(programs, other, scratch, image, number, name):
    """Run one case, in a process of its own."""
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(programs, scratch / f"service-{number}"))
        host = Host(lab.work, image)
        stack.callback(host.kill)
        host.boot()
        try:
            case.functions[name](host, lab, other)
        except Exception:
            print(host.call("journalctl --no-pager -n 30 -u etcdproxy", check=False))
            raise


def run_apart(run, number, name) -> bool:
    """Run one case in a child, because it enters the network of its container."""
    child = os.fork()
    if not child:
        code = 1
        try:
            run(number, name)
            code = 0
        except CannotBoot as problem:
            print(f"    {problem}")
            code = CANNOT_BOOT
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == CANNOT_BOOT and number == 0:
        raise CannotBoot
    return code == 0


def without_systemd(programs, scratch):
    """Run the command line of the unit with the environment of the unit."""
    root, prefix = scratch / "root", scratch / "opt"
    install = (programs.binary, "install")
    with Lab(programs, scratch / "without") as lab:
        cluster = three_members(lab).start()
        output(*install, "--prefix", prefix, "--bin-dir", scratch / "bin", "--no-systemd")
        root.mkdir()
        output(*install, "--root", root, "--systemd")
        unit = (root / "etc/systemd/system/etcdproxy.service").read_text()
        (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.M)
        command = shlex.split(line.replace("/opt/etcdproxy", str(prefix)))
        address = f"{lab.host}:2379"
        lab.env = {
            "ETCDPROXY_ENDPOINTS": cluster.endpoints, "ETCDPROXY_LISTEN_ADDR": address
        }
        user = ("--reuid=65534", "--regid=65534", "--clear-groups")
        lab.start("service", "setpriv", *user, *command)
        lab.wait_ready(address)
        print(f"ok {line}, run without systemd")


def main():
    binary, other, client, scratch, image = (Path(arg).absolute() for arg in sys.argv[1:6])
    words = sys.argv[6:]
    exit_on_signals()
    scratch.chmod(0o755)
    programs = Programs(binary, client)
    run = partial(run_here, programs, other, scratch, image)
    try:
        with system_bus(scratch / "bus.log"):
            sys.exit(case.run(words, partial(run_apart, run)))
    except CannotBoot:
        skipped = len(matching(case.functions, words))
        print("SKIPPED: systemd cannot be booted here, see above")
        without_systemd(programs, scratch)
        print(f"1 passed, 0 failed, {skipped} skipped")


if __name__ == "__main__":
    main()
