"""The ways to a cluster, and what calls cost on each."""

import json
import re
from statistics import median
from typing import NamedTuple

from lib.members import three_members
from lib.processes import output
from lib.proxies import Proxy

DIRECT, LEADER = "direct", "leader"
METHODS = {"put": "Put", "get": "Range"}  # etcd's names


class Cost(NamedTuple):
    """What calls cost on one way. CPU: seconds for 100,000 calls."""

    ops_per_s: float
    p50_ms: float
    proxy_cpu: float
    members_cpu: float  # of all three


class Ways:
    """A new cluster, and the ways to it: DIRECT, LEADER, and a proxy for each mode.

    With `ca` the members take TLS only, and there is no way LEADER. `options` are those of
    `members.Member`.
    """

    def __init__(self, lab, modes, ca=None, **options):
        self.client = lab.programs.client
        self.trust = ("--ca", ca.cert) if ca else ()
        cluster = three_members(lab, ca=ca, **options).start()
        self.members = cluster.members
        self.addresses = [member.client for member in cluster.members]
        if not ca:
            number = int(output(self.client, "leader", cluster.endpoints))
            self.leader = self.addresses[number - 1]
        flags = ("--cacert", ca.cert) if ca else ()
        self.proxies = {
            mode: Proxy(lab, cluster.endpoints, "--mode", mode, *flags, name=mode, port=port)
            for port, mode in enumerate(modes, 2379)
        }

    def medians(self, ways, rounds, *args):
        """The median `Cost` of each way. In a round, each way has a turn."""
        costs = {way: [] for way in ways}
        for number in range(rounds):
            for way in ways:
                costs[way].append(self.turn(way, number, *args))
        return {way: Cost(*map(median, zip(*costs[way]))) for way in ways}

    def turn(self, way, number, call, clients, seconds) -> Cost:
        """Run the example client once. On DIRECT, another member is the first in each turn."""
        proxy = self.proxies.get(way)
        address, trust = (proxy.url, ()) if proxy else (self.direct(way, number), self.trust)
        flags = ("--clients", str(clients), "--seconds", str(seconds), "--call", call)
        groups = ([proxy.process] if proxy else [], [member.process for member in self.members])
        calls = self.calls(call)
        cpu = cpu_seconds(groups)
        report = json.loads(output(self.client, "bench", address, *flags, *trust))
        cpu = [after - before for after, before in zip(cpu_seconds(groups), cpu)]
        calls = self.calls(call) - calls
        if report["errors"]:
            raise RuntimeError(f"{way}, {call}: {report['errors']} errors")
        for_many = (seconds / calls * 100_000 for seconds in cpu)
        return Cost(report["ops_per_s"], report["p50_ms"], *for_many)

    def direct(self, way, number):
        if way == LEADER:
            return self.leader
        first = number % len(self.addresses)
        return ",".join(self.addresses[first:] + self.addresses[:first])

    def calls(self, call):
        """How many of these calls the members have answered since their start."""
        method = METHODS[call]
        answered = rf'^grpc_server_handled_total\{{.*grpc_code="OK".*"{method}".*\}} (\S+)$'
        pages = (member.metrics() for member in self.members)
        return sum(float(count) for page in pages for count in re.findall(answered, page, re.M))


def cpu_seconds(groups):
    """For each group of processes, the CPU time that they have used together."""
    return [sum(process.cpu_seconds() for process in group) for group in groups]
