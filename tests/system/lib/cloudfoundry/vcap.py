"""The user that stages and runs apps, and what each of its processes gets."""

import contextlib
import json
import subprocess
import tempfile
from pathlib import Path

VCAP = 2000  # its uid and gid
SYSTEM_PATH = "/usr/bin:/bin"
BINDING_FILES = {"SERVICE_BINDING_ROOT", "VCAP_SERVICES_FILE_PATH"}


def environment(memory_mb, own, process_type=None):
    """The variables at staging and at launch; `own` are the app's."""
    application = {"application_name": "app", "process_id": "guid"}
    if process_type:
        application["process_type"] = process_type
    env = {
        "PATH": SYSTEM_PATH,
        "LANG": "en_US.UTF-8",
        "USER": "vcap",
        "MEMORY_LIMIT": f"{memory_mb}m",
        "VCAP_APPLICATION": json.dumps(application),
    }
    # The platform sets exactly one of these three.
    if not BINDING_FILES & set(own):
        env["VCAP_SERVICES"] = "{}"
    return env | own


def new_directory(parent, prefix) -> Path:
    """With a random name. Every user can enter it."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    path.chmod(0o755)
    return path


def give_to_vcap(root):
    subprocess.run(["chown", "-hR", f"{VCAP}:{VCAP}", root], check=True)
    root.chmod(0o755)


def vcap_processes():
    """The command lines of vcap's processes in this process namespace."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = (path / "status").read_text()
            if f"\nUid:\t{VCAP}\t" in status and "\nState:\tZ" not in status:
                found.append((path / "cmdline").read_bytes().decode())
    return [line.replace("\0", " ").strip() for line in found]
