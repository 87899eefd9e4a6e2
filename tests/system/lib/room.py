"""Room for a measurement: memory and open files."""

import contextlib
import resource
import shutil
import tempfile

MEMORY_DIR = "/dev/shm"
MEMORY_NEEDED = 4e9


def scratch(on_disk):
    """A directory in memory if there is enough of it, otherwise on disk."""
    place = on_disk
    with contextlib.suppress(OSError):
        if shutil.disk_usage(MEMORY_DIR).free >= MEMORY_NEEDED:
            place = MEMORY_DIR
    return tempfile.TemporaryDirectory(prefix="etcdproxy-", dir=place)


def allow_open_files(count):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
