"""A Debian with systemd of the tests' own, and the cases of scripts/service.sh.

usage: service.py BINARY OTHER_BINARY CLIENT WORK_DIR IMAGE [WORD...]

Boots IMAGE, a bare root file system, in a container and installs etcdproxy
there as its users do. With words, runs only the cases that have one of them
in their names. Needs root.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from chaos import LIBC, Cluster, Lab, Load, Member, Subject, die_with_parent
from throughput import certificate

README = Path(__file__).absolute().parent.parent / "README.md"
BOOT_SECONDS = 60
COMMAND_SECONDS = 60
PROXY = "http://127.0.0.1:2379"
ENV_FILE = "/etc/etcdproxy/etcdproxy.env"
MOST_EXPOSED = 1.5  # of systemd-analyze security; etcd's own unit has 9.2
CANNOT_BOOT = 75
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CannotBoot(Exception):
    pass


# The host


class Host:
    """A system that is booted, and its root directory."""

    def __init__(self, work, image):
        self.root = work / "root"
        self.console = work / "console.log"
        subprocess.run(
            ["cp", "-a", "--reflink=auto", image, self.root], check=True
        )
        self.container = self.leader = None

    def boot(self):
        with open(self.console, "ab") as console:
            self.container = subprocess.Popen(
                [
                    "systemd-nspawn", "--quiet", "--directory", self.root,
                    "--boot", "--private-network", "--register=no",
                    "--keep-unit",
                ],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                preexec_fn=die_with_parent,
            )
        deadline = time.monotonic() + BOOT_SECONDS
        while not self.is_up():
            ended = self.container.poll() is not None
            if ended or time.monotonic() > deadline:
                lines = self.console.read_text(errors="replace").split("\n")
                said = [line.strip() for line in lines if line.strip()]
                self.kill()
                raise CannotBoot(said[-1] if said else "no word from it")
            time.sleep(0.1)
        self.enter_network()

    def is_up(self):
        pid = self.container.pid
        with contextlib.suppress(OSError, ValueError, IndexError):
            path = Path(f"/proc/{pid}/task/{pid}/children")
            self.leader = int(path.read_text().split()[0])
            state = self.call("systemctl is-system-running", check=False)
            return state.strip() in ("running", "degraded")
        return False

    def enter_network(self):
        """This process, and what it starts from now on, is on the host's."""
        with open(f"/proc/{self.leader}/ns/net") as namespace:
            if LIBC.setns(namespace.fileno(), 0):
                raise CannotBoot("its network cannot be entered")
        for number in (1, 2, 3):
            address = f"10.0.0.{number}/32"
            run(["ip", "address", "replace", address, "dev", "lo"])

    def call(self, command, check=True):
        """What a root shell on it says; stderr as well."""
        done = subprocess.run(
            [
                "nsenter", "--all", "--target", str(self.leader), "env", "-i",
                f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8",
                "sh", "-c", f"cd; {command}",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=COMMAND_SECONDS,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{command}: {done.returncode}\n{done.stdout}"
            )
        return done.stdout

    def fails(self, command, code):
        text = self.call(f"{command}; echo $?", check=False)
        *lines, found = text.splitlines()
        same((command, found), (command, str(code)))
        return "\n".join(lines)

    def put(self, binary, name="etcdproxy"):
        shutil.copy(binary, self.root / "root" / name)

    def main_process(self):
        return self.call("systemctl show --property MainPID --value etcdproxy")

    def shut_down(self):
        """By systemd's own signal for it."""
        os.kill(self.leader, signal.SIGRTMIN + 4)
        self.container.wait(BOOT_SECONDS)

    def kill(self):
        if self.container and self.container.poll() is None:
            if self.leader:
                os.kill(self.leader, signal.SIGKILL)  # and all its processes
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.container.wait(10)
            self.container.kill()
            self.container.wait()


def run(argv):
    subprocess.run(argv, check=True, timeout=COMMAND_SECONDS)


def same(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


def until(true, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.1)


# The cluster


class HostMember(Member):
    """Where the README has it."""

    def __init__(self, lab, number):
        super().__init__(lab, number)
        self.address = f"10.0.0.{number}:2379"
        self.client = f"{self.SCHEME}://{self.address}"


class TlsMember(HostMember):
    """Asks for a client certificate, and answers health in plain text."""

    SCHEME = "https"

    def __init__(self, lab, number):
        super().__init__(lab, number)
        work = lab.work
        cert, key = work / f"{self.name}.pem", work / f"{self.name}.key"
        signed_by = ("-CA", work / "ca.pem", "-CAkey", work / "ca.key")
        certificate(cert, key, f"10.0.0.{number}", *signed_by)
        self.health = f"10.0.0.{number}:2381"
        self.flags = (
            "--cert-file", cert, "--key-file", key, "--client-cert-auth",
            "--trusted-ca-file", work / "ca.pem",
            "--listen-metrics-urls", f"http://{self.health}",
        )

    def wait_ready(self):
        self.lab.wait_ready(self.health)


ENDPOINTS = ",".join(f"10.0.0.{number}:2379" for number in (1, 2, 3))


def configure(host, *lines):
    (host.root / ENV_FILE[1:]).write_text("\n".join(lines) + "\n")


def installed(host, subject, *lines):
    host.put(subject.binary)
    host.call("./etcdproxy install --enable")
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}", *lines)


# Cases

CASES = {}


def case(title):
    def add(function):
        CASES[title] = function
        return function
    return add


def commands(chapter):
    """What the chapter tells to type on the host, and what it shows then."""
    _, text = README.read_text().split(f"\n## {chapter}\n")
    found = []
    for block in re.findall(r"^```\n(.*?)^```$", text.split("\n## ")[0], re.M | re.S):
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
    """Without what is different on each host."""
    text = re.sub(r"\d+\.\d+\.\d+-[0-9a-f]{12}", "VERSION", text)
    text = re.sub(r"with etcd [\d.]+", "with etcd VERSION", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]+Z", "TIME", text)
    text = re.sub(r"sha256 [0-9a-f]{64}", "sha256 HASH", text)
    return re.sub(r"process [\d, ]+", "process PID", text)


@case("the README's chapter, word for word")
def chapter(host, lab, subject, other):
    with_cluster = Cluster(lab, HostMember)
    assert with_cluster.members
    before = list_files(host)
    host.put(subject.binary)
    host.put(other, "etcdproxy-new")
    typed = commands("Air-gapped hosts")
    assert len(typed) >= 8, typed
    for command, shown in typed:
        said = host.call(command).splitlines()
        for line in shown:
            if line != "…":
                wanted = shape(line)
                problem = f"{command}: {line!r} is not in {said}"
                assert wanted in map(shape, said), problem
    same(list_files(host) ^ before, set())


@case("the sandbox is strict, and systemd has nothing to say")
def sandbox(host, lab, subject, _):
    installed(host, subject)
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


@case("it serves, restarts, comes back, and stops")
def lives(host, lab, subject, _):
    Cluster(lab, HostMember)
    for mode, name in (("grpc-proxy", "etcd"), ("tunnel", "etcdproxy")):
        installed(host, subject, f"ETCDPROXY_MODE={mode}")
        said = host.call("etcdproxy install --start")
        assert said.endswith("the service is started\n"), said
        same(host.call("etcdproxy health"), "127.0.0.1:2379 is ready\n")
        # It is the process that systemd has started, and nobody else's user.
        pid = host.main_process().strip()
        same(host.call(f"cat /proc/{pid}/comm").strip(), name)
        user = host.call(f"stat -c %u /proc/{pid}").strip()
        assert 61184 <= int(user) <= 65519, f"uid {user} is not a dynamic one"
        # As a crash of a Go program ends, and as the kernel ends one.
        for number in ("QUIT", "KILL"):
            pid = host.main_process().strip()
            host.call(f"kill -{number} {pid}")
            until(lambda: host.main_process().strip() not in ("0", pid), "it is back")
            host.call("etcdproxy wait --timeout 10s")
        host.call("etcdproxy wait --timeout 10s")
        host.call("systemctl restart etcdproxy && etcdproxy health")
        host.call("systemctl stop etcdproxy")
        host.fails("etcdproxy health", 69)
        result = host.call("systemctl show --property Result --value etcdproxy")
        same((mode, result), (mode, "success\n"))


@case("it may listen where its settings say, and nowhere else")
def ports(host, lab, subject, _):
    Cluster(lab, HostMember)
    installed(host, subject, "ETCDPROXY_LISTEN_ADDR=127.0.0.1:4001")
    host.call("etcdproxy install --start")
    host.call("etcdproxy health --listen-addr 127.0.0.1:4001")
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}",
              "ETCDPROXY_LISTEN_ADDR=127.0.0.1:4002")
    said = host.call("systemctl restart etcdproxy; echo $?", check=False)
    if said.splitlines()[-1] == "0":
        # systemd does it with BPF, and does without where there is none.
        print("    SKIPPED: ports cannot be restricted in this container")
    host.call("systemctl reset-failed etcdproxy; etcdproxy install --start")
    host.call("etcdproxy health --listen-addr 127.0.0.1:4002")


@case("certificates that only root can read")
def certificates(host, lab, subject, _):
    work, pki = lab.work, host.root / "etc/pki"
    certificate(work / "ca.pem", work / "ca.key", "ca")
    pki.mkdir(mode=0o700)
    for mode, name in (("grpc-proxy", ""), ("tunnel", "app")):
        # etcd's proxy takes no client certificate with a name.
        cert, key = work / "client.pem", work / "client.key"
        signed_by = ("-CA", work / "ca.pem", "-CAkey", work / "ca.key")
        certificate(cert, key, name, *signed_by, kind="DNS:client")
        for file in (work / "ca.pem", cert, key):
            shutil.copy(file, pki)
            (pki / file.name).chmod(0o600)
        if mode == "grpc-proxy":
            Cluster(lab, TlsMember)
        endpoints = ",".join(f"https://10.0.0.{n}:2379" for n in (1, 2, 3))
        installed(
            host, subject, f"ETCDPROXY_ENDPOINTS={endpoints}",
            f"ETCDPROXY_MODE={mode}", "ETCDPROXY_CACERT=/etc/pki/ca.pem",
            "ETCDPROXY_CERT=/etc/pki/client.pem",
            "ETCDPROXY_KEY=/etc/pki/client.key",
        )
        host.call("etcdproxy install --start")
        same(host.call("etcdproxy health"), "127.0.0.1:2379 is ready\n")
        command = host.call(f"cat /proc/{host.main_process().strip()}/cmdline")
        assert "BEGIN" not in command, command


@case("a late cluster is waited for, and a setting that cannot work is not")
def late(host, lab, subject, _):
    # A tunnel without a member is not ready: nothing waits for it.
    installed(host, subject, "ETCDPROXY_MODE=tunnel")
    host.call("systemctl start --no-block etcdproxy")
    host.call("etcdproxy wait --listening --timeout 10s")
    state = host.call("systemctl show --property ActiveState --value etcdproxy")
    same(state, "activating\n")
    installed(host, subject)
    host.call("etcdproxy install --start")
    host.fails("etcdproxy health", 69)
    Cluster(lab, HostMember)
    host.call("etcdproxy wait --timeout 30s")
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}", "ETCDPROXY_MODE=fast")
    host.fails("systemctl restart etcdproxy", 1)
    time.sleep(3)
    state = host.call("systemctl show --property ActiveState,NRestarts etcdproxy")
    assert "ActiveState=failed" in state and "NRestarts=0" in state, state
    assert "ETCDPROXY_MODE: invalid mode \"fast\"" in host.call("journalctl -u etcdproxy")
    # Settings that nobody reads the answer to are used all the same.
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}", "ETCDPROXY_LISTEN_ADDR=127.0.0.1:4001")
    host.call("etcdproxy install --start | true; etcdproxy wait --listen-addr 127.0.0.1:4001")
    same(host.call("systemctl show --property NeedDaemonReload --value etcdproxy"), "no\n")
    host.call("etcdproxy install --no-systemd")
    host.fails("systemctl is-active --quiet etcdproxy", 3)
    host.call("etcdproxy install")
    configure(host, "")
    said = host.fails("etcdproxy install --start", 78)
    assert f"set ETCDPROXY_ENDPOINTS in {ENV_FILE}" in said, said


@case("it starts at boot")
def boot(host, lab, subject, _):
    installed(host, subject)
    host.shut_down()
    host.boot()
    Cluster(lab, HostMember)
    host.call("etcdproxy wait --timeout 30s")
    host.call("etcdproxy verify")


@case("an upgrade of a live service loses no acknowledged write")
def upgrade(host, lab, subject, other):
    Cluster(lab, HostMember)
    host.put(other)
    host.call("./etcdproxy install")
    configure(host, f"ETCDPROXY_ENDPOINTS={ENDPOINTS}")
    host.call("etcdproxy install --start")
    before = host.call("etcd --version").splitlines()[0]
    load = Load(lab, PROXY)
    load.settles()
    host.put(subject.binary, "etcdproxy-new")
    said = host.call("./etcdproxy-new install")
    assert "to change that: systemctl restart etcdproxy.service" in said, said
    assert load.goes_on(1), "the old one serves on"
    host.call("systemctl restart etcdproxy.service")
    assert load.goes_on(2), "the client goes on"
    after = host.call("etcd --version").splitlines()[0]
    print(f"    {before}, then {after}")
    assert before != after, after
    host.call("etcdproxy rollback && systemctl restart etcdproxy")
    assert load.goes_on(2), "the client goes on"
    host.call("./etcdproxy-new install --start")
    assert load.goes_on(2), "the client goes on"
    report = load.stop()
    losses = {name: report[name] for name in ("lost_writes", "lost_events")}
    assert not any(losses.values()), losses
    host.call("etcdproxy uninstall --purge")
    host.fails("systemctl cat etcdproxy.service >/dev/null", 1)


# Running them


@contextlib.contextmanager
def system_bus():
    """systemd-nspawn wants one, if only to be told that it is not wanted."""
    if Path("/run/dbus/system_bus_socket").exists():
        yield
        return
    Path("/run/dbus").mkdir(exist_ok=True)
    bus = subprocess.Popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"],
                           preexec_fn=die_with_parent)
    try:
        yield
    finally:
        bus.terminate()
        bus.wait()
        Path("/run/dbus/system_bus_socket").unlink(missing_ok=True)


def run_case(name, number, subject, other, image):
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(subject, f"service-{number}"))
        host = Host(lab.work, image)
        stack.callback(host.kill)
        host.boot()
        try:
            CASES[name](host, lab, subject, other)
        except Exception:
            print(host.call("journalctl --no-pager -n 30 -u etcdproxy", check=False))
            raise


def without_systemd(subject, problem):
    """What can be seen all the same: the unit's own command line, with the
    environment that the unit has.
    """
    print(f"SKIPPED: systemd cannot be booted here: {problem}")
    work = subject.work / "systems"
    (work / "root").mkdir(parents=True)
    with Lab(subject, "without") as lab:
        cluster = Cluster(lab)
        run([subject.binary, "install", "--prefix", work / "opt", "--bin-dir",
             work / "bin", "--no-systemd"])
        run([subject.binary, "install", "--root", work / "root", "--systemd"])
        unit = (work / "root/etc/systemd/system/etcdproxy.service").read_text()
        (line,) = re.findall(r"^ExecStart=(.*)$", unit, re.M)
        command = line.replace("/opt/etcdproxy", str(work / "opt"))
        address = f"{lab.host}:2379"
        lab.env = {
            "ETCDPROXY_ENDPOINTS": cluster.endpoints,
            "ETCDPROXY_LISTEN_ADDR": address,
        }
        lab.start("service", "setpriv", "--reuid=65534", "--regid=65534",
                  "--clear-groups", *shlex.split(command))
        lab.wait_ready(address)
        print(f"ok {line}, run without systemd")


def run_all(subject, other, image, words):
    passed = failed = 0
    names = [name for name in CASES if not words or any(word in name for word in words)]
    for number, name in enumerate(names):
        started = time.monotonic()
        # A process of its own, for it enters the container's network.
        child = os.fork()
        if not child:
            code = 1
            try:
                run_case(name, number, subject, other, image)
                code = 0
            except CannotBoot as problem:
                print(f"    {problem}")
                code = CANNOT_BOOT
            except BaseException:
                traceback.print_exc(file=sys.stdout)
            sys.stdout.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == CANNOT_BOOT and not passed and not failed:
            without_systemd(subject, "see above")
            return 0
        took = time.monotonic() - started
        print("FAILED" if code else "ok", f"{name} ({took:.1f} s)", flush=True)
        failed += bool(code)
        passed += not code
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def main():
    binary, other, client, work, image = (
        Path(arg).absolute() for arg in sys.argv[1:6]
    )
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    work.chmod(0o755)
    with system_bus():
        subject = Subject(binary, client, work)
        sys.exit(run_all(subject, other, image, sys.argv[6:]))


if __name__ == "__main__":
    main()
