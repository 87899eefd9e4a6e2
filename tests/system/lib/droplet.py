"""What the platform runs to make a droplet."""


class Staging:
    """`etcdproxy supply`, and the tar of its files: the buildpack's part of a droplet."""

    def __init__(self, binary, work):
        build, cache, self.deps = (work / name for name in ("build", "cache", "deps"))
        self.archive = work / "droplet.tgz"
        self.supply = (binary, "supply", build, cache, self.deps, "0")
        self.pack = ("tar", "-C", self.deps, "-czf", self.archive, ".")
        for directory in (build, cache):
            directory.mkdir()
