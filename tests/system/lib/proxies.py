"""`etcdproxy run`."""


class Proxy:
    """A proxy on the lab's host. The constructor returns when it is ready."""

    def __init__(self, lab, endpoints, *flags, name="proxy", host=None, port=2379):
        self.address = f"{host or lab.host}:{port}"
        self.url = f"http://{self.address}"
        where = ("--endpoints", endpoints, "--listen-addr", self.address)
        self.process = lab.start(name, lab.programs.binary, "run", *where, *flags)
        lab.wait_ready(self.address)
