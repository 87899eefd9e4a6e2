"""Other people's client libraries: their own tests, directly and through the proxy.

`prepare` needs the network; `run` needs a network and a process table of its
own, because many suites expect etcd on localhost:2379, and one stops members
by their names. With words, it uses only suites whose names contain one of
them, and leaves the document as it is. Exits with 1 if a test passes directly
and fails through the sidecar.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as xml
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Optional

from lib.cases import matching
from lib.lab import Lab, Programs
from lib.members import NUMBERS, Cluster, Member
from lib.processes import ENV, exit_on_signals, output
from lib.proxies import Proxy
from lib.report import circumstances, table
from lib.tls_relay import TlsRelay

WAYS = {  # name: flags of `etcdproxy run`; None: no sidecar
    "direct": None,
    "grpc-proxy": (),
    "native": ("--mode", "native"),
    "namespace": ("--mode", "native", "--namespace", "of/this/run/"),
}
HOST, PORT = "127.0.0.1", 2379
PLAIN_PORT = 12379  # behind TLS, when a suite wants that
ADDRESS = f"{HOST}:{PORT}"
URL = f"http://{ADDRESS}"
RUN_SECONDS = 900
# Python's suite stops the processes with these names.
MEMBER_NAME = "pifpaf{}"


class Missing(Exception):
    """The source of a suite cannot be had."""


class Suite(NamedTuple):
    """The published tests of a library.

    `fetch` gets an empty directory and puts the tests into it; `install` gets
    the same, with what `fetch` left; `run` also gets the environment and a
    directory for its report, and returns a dict: test: whether it passed.
    """

    name: str
    version: str
    language: str
    fetch: Callable
    install: Callable
    run: Callable
    certificate: tuple = ()  # files in the source for an etcd with TLS: certificate, key
    setup: tuple = ()  # arguments of etcdctl
    flags: tuple = ()  # of the members
    by_design: dict = {}  # test: why it fails through the sidecar, and may


def call(*argv, cwd=None, env=ENV, seconds=1800):
    """Run a program that people need not see, unless it fails."""
    done = subprocess.run(
        argv, cwd=cwd, env=env, timeout=seconds, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    if done.returncode:
        raise Missing(f"{argv[0]} failed: {done.stdout[-2000:]}")


# Sources

def checkout(url, tag):
    """From ETCDPROXY_SUITES_DIR, or from git."""
    def fetch(suite, source):
        given = os.environ.get("ETCDPROXY_SUITES_DIR")
        given = given and Path(given) / suite.name.replace(" ", "-")
        if given and given.is_dir():
            ignored = shutil.ignore_patterns(".git")
            shutil.copytree(given, source, dirs_exist_ok=True, ignore=ignored)
        else:
            clone = ("git", "clone", "--quiet", "--depth", "1", "--branch", tag)
            call(*clone, url, source, seconds=120)
    return fetch


def sdist(package, inside="*"):
    """The package as its authors published it on PyPI; `inside` names the directory to use."""
    def fetch(suite, source):
        parts = source.with_name("parts")
        where = ("--no-deps", "--dest", parts, f"{package}=={suite.version}")
        call(sys.executable, "-m", "pip", "download", "--no-binary", ":all:", *where)
        (archive,) = parts.iterdir()
        shutil.unpack_archive(archive, parts)
        (found,) = (path for path in parts.glob(inside) if path.is_dir())
        found.rename(source)
        shutil.rmtree(parts)
    return fetch


def nothing_to_fetch(suite, source):
    """The installed package has the tests."""


def crate(package):
    """From Cargo's registry: Cargo.lock has the crate for the example client."""
    def fetch(suite, source):
        metadata = json.loads(output("cargo", "metadata", "--format-version", "1", "--locked"))
        for found in metadata["packages"]:
            if (found["name"], found["version"]) == (package, suite.version):
                shutil.copytree(Path(found["manifest_path"]).parent, source, dirs_exist_ok=True)
                return
        raise Missing(f"Cargo.lock has no {package} {suite.version}")
    return fetch


# Languages

def pip(*packages):
    def install(suite, source):
        venv = source.with_name("venv")
        call(sys.executable, "-m", "venv", venv)
        call(venv / "bin/pip", "install", "--quiet", *packages)
    return install


def pytest(*arguments, **variables):
    """`{site}` in an argument is where the packages are."""
    def run(suite, source, env, work):
        venv = source.with_name("venv")
        (site,) = (venv / "lib").glob("python*/site-packages")
        report = work / "report.xml"
        argv = [venv / "bin/python", "-m", "pytest", "-q", f"--junitxml={report}"]
        argv += [argument.format(site=site) for argument in arguments]
        in_background(argv, source, env | variables, work)
        return junit(report)
    return run


def junit(report):
    results = {}
    for case in xml.parse(report).iter("testcase"):
        if case.find("skipped") is None:
            passed = case.find("failure") is None and case.find("error") is None
            name = f"{case.get('classname')}.{case.get('name')}"
            results[name] = results.get(name, True) and passed
    return results


def npm(suite, source):
    call("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", cwd=source)
    call("npm", "run", "build:ts", cwd=source)


def mocha(suite, source, env, work):
    report = work / "report.json"
    options = ("--reporter", "json", "--reporter-option", f"output={report}", "--exit")
    variables = {"ETCD_ADDR": ADDRESS, "ETCD_VERSION": "3.7.2"}
    in_background(["npx", "mocha", *options], source, env | variables, work)
    tests = json.loads(report.read_text())
    failed = {test["fullTitle"] for test in tests["failures"]}
    ended = {test["fullTitle"] for test in tests["passes"]} | failed
    return {name: name not in failed for name in sorted(ended)}


def cargo_build(suite, source):
    with (source / "Cargo.toml").open("a") as manifest:
        manifest.write("\n[workspace]\n")
    env = ENV | {"CARGO_TARGET_DIR": str(source.with_name("target"))}
    call("cargo", "test", "--no-run", "--tests", cwd=source, env=env)


def cargo_test(suite, source, env, work):
    env = env | {"CARGO_TARGET_DIR": str(source.with_name("target"))}
    argv = ["cargo", "test", "--offline", "--tests", "--no-fail-fast", "--", "--test-threads=1"]
    # Two of the ignored tests need what our members have; the third needs another member.
    argv += ["--include-ignored", "--skip", "test_cluster"]
    text = in_background(argv, source, env, work)
    # Tests print too, after the name of the test.
    found = re.findall(r"^test (\S+) \.\.\.(.*?)(ok|FAILED)$", text, re.M | re.S)
    return {name: word == "ok" for name, _, word in found}


RUBY_SHIMS = {
    # They only measure coverage.
    "simplecov.rb": """\
        module SimpleCov
          def self.start; end
          def self.formatter=(_); end
          module Formatter; Codecov = nil; end
        end
        """,
    "codecov.rb": "",
    # The suite starts a member of its own; ours runs already.
    "no_member.rb": """\
        $LOADED_FEATURES << File.expand_path('spec/helpers/test_instance.rb')
        module Helpers
          class TestInstance
            def start; end
            def stop; end
            def version; Gem::Version.new('3.7.2'); end
          end
        end
        """,
}


def ruby_shims(suite, source):
    for path, text in RUBY_SHIMS.items():
        shim = source.with_name("shims") / path
        shim.parent.mkdir(exist_ok=True)
        shim.write_text(text)


def rspec(suite, source, env, work):
    report = work / "report.json"
    argv = ["/usr/bin/ruby", "-I", source.with_name("shims"), "-r", "no_member", "/usr/bin/rspec"]
    in_background([*argv, "--format", "json", "--out", report], source, env, work)
    examples = json.loads(report.read_text())["examples"]
    return {
        f"{case['full_description']} {case['id']}": case["status"] == "passed"
        for case in examples if case["status"] != "pending"
    }


def in_background(argv, cwd, env, work) -> str:
    """A suite that hangs is ended, and only the tests with a result count."""
    log = work / "suite.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )
        try:
            process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"suites.py: no end after {RUN_SECONDS} s", file=sys.stderr)
        finally:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass
            process.wait()
    return log.read_text(errors="replace")


SUITES = [
    Suite(
        "python etcd3", "0.12.0", "Python", sdist("etcd3"),
        pip(
            "etcd3==0.12.0", "protobuf<3.21", "tenacity==6.1.0", "pytest<7", "hypothesis<5",
            "mock", "six",
        ),
        pytest("tests", PYTHON_ETCD_HTTP_URL=URL, TEST_ETCD_VERSION="v3.5.0"),
    ),
    Suite(
        "aetcd", "1.0.0", "Python", sdist("aetcd"),
        pip("aetcd==1.0.0", "pytest<10", "pytest-asyncio==1.3.0", "pytest-mock", "pytest-cov"),
        pytest("tests", "--with-cluster", TEST_ETCD_HTTP_URL=URL),
    ),
    Suite(
        "etcetra", "0.1.19", "Python",
        checkout("https://github.com/lablup/etcetra", "0.1.19"),
        pip(
            "etcetra==0.1.19", "setuptools<81", "pytest~=6.2.5", "pytest-asyncio~=0.16.0",
            "pytest-mock",
        ),
        pytest("tests", BACKEND_ETCD_ADDR=ADDRESS),
    ),
    Suite(
        "etcd3gw", "2.7.0", "Python, JSON", nothing_to_fetch,
        pip("etcd3gw==2.7.0", "pytest<9", "oslotest", "pifpaf"),
        pytest("{site}/etcd3gw/tests"),
    ),
    Suite(
        "tooz", "9.1.0", "Python, JSON", nothing_to_fetch,
        pip(
            "tooz==9.1.0", "etcd3gw==2.7.0", "sysv-ipc", "pymemcache", "redis", "pytest<9",
            "testtools", "fixtures", "ddt",
        ),
        pytest(
            "{site}/tooz/tests/test_coordination.py", "{site}/tooz/tests/drivers/test_etcd3gw.py",
            "{site}/tooz/tests/test_partitioner.py", TOOZ_TEST_URL=f"etcd3+{URL}",
        ),
    ),
    Suite(
        "node etcd3", "1.1.2", "Node.js",
        checkout("https://github.com/microsoft/etcd3", "v1.1.2"), npm, mocha,
        tuple(f"src/test/certs/{name}" for name in (
            "certs/etcd0.localhost.crt", "private/etcd0.localhost.key",
        )),
    ),
    Suite(
        "etcd-client", "0.21.1", "Rust", crate("etcd-client"), cargo_build, cargo_test,
        setup=(("user", "add", "root:rootpwd"), ("user", "grant-role", "root", "root")),
        flags=("--auth-token-ttl", "2", "--max-request-bytes", "10240"),
        by_design={
            "test_auth_refresh_token_once_for_concurrent_calls":
                "it looks for the member's logins in `/metrics`, which is the sidecar's page",
        },
    ),
    Suite(
        "ruby etcdv3", "0.11.6", "Ruby",
        checkout("https://github.com/davissp14/etcdv3-ruby", "v0.11.6"), ruby_shims, rspec,
    ),
]


def place(cache, suite) -> Path:
    return cache / f"{suite.name.replace(' ', '-')}-{suite.version}"


def prepare(cache, suites):
    for suite in suites:
        done = place(cache, suite)
        if (done / "ready").exists():
            continue
        shutil.rmtree(done, ignore_errors=True)
        source = done / "source"
        done.mkdir(parents=True)
        try:
            if suite.fetch is nothing_to_fetch:
                source.mkdir()
            suite.fetch(suite, source)
            suite.install(suite, source)
            (done / "ready").touch()
        except (Missing, OSError, subprocess.SubprocessError) as err:
            print(f"suites.py: SKIPPED {suite.name}: {err}", file=sys.stderr)


def cluster_of(lab, address, flags) -> Cluster:
    """The first member has this address, if there is one."""
    members = []
    for number in NUMBERS:
        own = address if number == NUMBERS[0] else None
        member = Member(lab, number, address=own, flags=flags)
        member.name = MEMBER_NAME.format(number - 1)
        members.append(member)
    return Cluster(members)


def make_first_leader(tools, cluster, env):
    """So that a call that only the leader answers works directly too."""
    ctl = (tools / "etcdctl", "--endpoints", cluster.endpoints)
    statuses = json.loads(output(*ctl, "endpoint", "status", "--write-out", "json", env=env))
    ids = {status["Endpoint"]: status["Status"]["header"]["member_id"] for status in statuses}
    first, leader = ids[cluster.members[0].client], statuses[0]["Status"]["leader"]
    if first != leader:
        output(*ctl, "move-leader", f"{first:x}", env=env)


def run_suite(programs, tools, cache, lab_path, suite, way, keep):
    flags = WAYS[way]
    source = place(cache, suite) / "source"
    with Lab(programs, lab_path) as lab, ExitStack() as stack:
        port = PLAIN_PORT if suite.certificate else PORT
        env = ENV | {"PATH": f"{tools}:{ENV['PATH']}", "ETCDCTL_API": "3"}
        address = f"{HOST}:{port}" if flags is None else None
        cluster = cluster_of(lab, address, suite.flags).start()
        make_first_leader(tools, cluster, env)
        for arguments in suite.setup:
            output(tools / "etcdctl", "--endpoints", cluster.endpoints, *arguments, env=env)
        if flags is not None:
            if "--namespace" in flags:
                # Suites also manage users and members, which are outside of a namespace.
                lab.env["ETCDPROXY_NAMESPACE_ADMIN"] = "1"
            Proxy(lab, cluster.endpoints, *flags, host=HOST, port=port)
        if suite.certificate:
            files = (source / file for file in suite.certificate)
            stack.enter_context(TlsRelay((HOST, PORT), (HOST, port), *files))
        results = suite.run(suite, source, env, lab.work)
        if keep:
            kept = keep / f"{suite.name} {way} {lab_path.name}".replace(" ", "-")
            kept.mkdir(parents=True, exist_ok=True)
            for path in (*lab.work.glob("*.log"), *lab.work.glob("report.*")):
                shutil.copy(path, kept)
        return results


class Outcome(NamedTuple):
    passed: int
    failed: int
    worse: list  # tests that pass directly and fail here, twice

    def __str__(self):
        return f"{self.passed}/{self.failed}"


def outcome(results, direct, again) -> Outcome:
    """`again` runs the suite once more: a test that only sometimes fails is not worse."""
    passed = sum(results.values())
    def worse(found):
        return [name for name, good in direct.items() if good and not found.get(name, False)]
    names = worse(results)
    if names:
        twice = worse(again())
        names = [name for name in names if name in twice]
    return Outcome(passed, len(results) - passed, names)


BEGIN, END = "<!-- written by scripts/suites.sh -->", "<!-- end -->"


def write(document, text):
    old = document.read_text()
    if BEGIN in old:
        before, rest = old.split(BEGIN)
        after = rest.split(END)[1]
        document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def measure(options, suites, ways):
    programs = Programs(options.binary, None)
    rows, known, worse, number = [], [], [], 0
    for suite in suites:
        if not (place(options.cache, suite) / "ready").exists():
            cells = ("SKIPPED" for _ in ways)
            rows.append((f"{suite.name} {suite.version}", suite.language, *cells))
            continue
        def once(way, suite=suite):
            nonlocal number
            number += 1
            lab = options.scratch / f"run-{number}"
            keep = options.keep
            try:
                return run_suite(programs, options.tools, options.cache, lab, suite, way, keep)
            except (OSError, ValueError, xml.ParseError) as err:
                print(f"suites.py: {suite.name}, {way}: no report: {err}", file=sys.stderr)
                return {}
        cells = []
        direct = once("direct")
        for way in ways:
            found = direct if way == "direct" else once(way)
            result = outcome(found, direct, lambda way=way: once(way))
            print(f"suites.py: {suite.name}, {way}: {result}", file=sys.stderr, flush=True)
            for name in result.worse:
                why = suite.by_design.get(name)
                line = f"- {suite.name}, {way}: `{name}`"
                (known if why else worse).append(f"{line}: {why}" if why else line)
            cells.append(result)
        rows.append((f"{suite.name} {suite.version}", suite.language, *cells))
    return rows, known, worse


def main():
    plain = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("verb", choices=("prepare", "run"))
    parser.add_argument("binary", type=lambda text: Path(text).absolute())
    parser.add_argument("tools", type=lambda text: Path(text).absolute(), help="has etcdctl")
    parser.add_argument("cache", type=lambda text: Path(text).absolute())
    parser.add_argument("scratch", type=lambda text: Path(text).absolute())
    parser.add_argument("document", type=lambda text: Path(text).absolute())
    parser.add_argument("--ways", default="direct,native", type=lambda text: text.split(","))
    parser.add_argument("--keep", type=lambda text: Path(text).absolute(), help="for logs")
    parser.add_argument("words", nargs="*")
    options = parser.parse_intermixed_args()
    exit_on_signals()
    names = matching([suite.name for suite in SUITES], options.words)
    suites = [suite for suite in SUITES if suite.name in names]
    if options.verb == "prepare":
        prepare(options.cache, suites)
        return
    facts = circumstances(options.scratch)
    rows, known, worse = measure(options, suites, options.ways)
    version = output(options.binary, "version").splitlines()[0]
    figures = table(("suite", "language", *options.ways), rows)
    text = f"Measured on {facts['date']} with {version}; tests passed/failed:\n\n{figures}\n"
    if known:
        text += "\nThese tests cannot pass through the sidecar:\n\n" + "\n".join(known) + "\n"
    if worse:
        text += "\nThese tests pass directly and fail through the sidecar, twice:\n\n"
        text += "\n".join(worse) + "\n"
    if not options.words:
        write(options.document, text)
    print(text)
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
