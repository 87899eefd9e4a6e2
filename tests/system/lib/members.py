"""etcd members and clusters."""

import urllib.request

NUMBERS = (1, 2, 3)


class Member:
    """One member. Its addresses are known before it starts, and stay the same."""

    def __init__(
        self, lab, number, address=None, peer_host=None, ca=None, http_port=False, flags=()
    ):
        """With `ca`, a `pki.Authority`, its clients must use TLS.

        With `http_port`, HTTP has a port of its own, so that etcd's gRPC server has the other
        for itself.
        """
        self.lab = lab
        self.name = f"m{number}"
        # Linux gives higher ports to clients.
        self.address = self.health = address or f"{lab.host}:{20000 + number}"
        host, scheme = self.address.split(":")[0], "https" if ca else "http"
        self.client = f"{scheme}://{self.address}"
        self.peer_host = peer_host or lab.host
        self.peer = f"http://{self.peer_host}:{30000 + number}"
        self.flags = flags
        self.process = None
        if http_port:
            self.health = f"{host}:{22000 + number}"
            self.flags += ("--listen-client-http-urls", f"{scheme}://{self.health}")
        if ca:
            cert, key = ca.issue(self.name, f"IP:{host}", f"/CN={host}")
            self.health = f"{host}:{25000 + number}"
            self.flags += ("--cert-file", cert, "--key-file", key)
            self.flags += ("--listen-metrics-urls", f"http://{self.health}")

    def start(self, initial_cluster=None):
        """A restart needs no `initial_cluster`, because the data contains it."""
        argv = [
            self.lab.etcd, "--name", self.name, "--data-dir", self.lab.work / self.name,
            "--log-level", "error",
            "--listen-client-urls", self.client, "--advertise-client-urls", self.client,
            "--listen-peer-urls", self.peer, "--initial-advertise-peer-urls", self.peer,
            *self.flags,
        ]
        if initial_cluster:
            argv += ["--initial-cluster", initial_cluster]
        self.process = self.lab.start(self.name, *argv)

    def kill(self):
        self.process.kill()

    def metrics(self) -> str:
        """Its page for Prometheus."""
        with urllib.request.urlopen(f"http://{self.health}/metrics", timeout=5) as page:
            return page.read().decode()


class Cluster:
    """Members that run as long as the `with` block, or from `start` until their lab ends."""

    def __init__(self, members):
        self.members = members
        self.endpoints = ",".join(member.client for member in members)

    def start(self):
        """Start all members. Returns when each one is ready."""
        initial = ",".join(f"{member.name}={member.peer}" for member in self.members)
        for member in self.members:
            member.start(initial)
        for member in self.members:
            member.lab.wait_ready(member.health)
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        for member in self.members:
            member.kill()


def three_members(lab, **options) -> Cluster:
    """Three members on one host, which are not started yet."""
    return Cluster([Member(lab, number, **options) for number in NUMBERS])
