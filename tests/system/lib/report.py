"""Tables and documents."""

import datetime
import inspect
import os
import re
import textwrap
from pathlib import Path
from statistics import median

from lib.processes import output

MEASURED = ("what", "measured", "target", "met")


def table(header, rows) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(str, cells))} |" for cells in (header, *rows)]
    lines.insert(1, "|" + "---|" * len(header))
    return "\n".join(lines)


def row(what, value, unit, detail, at_most=None, at_least=None):
    """A row of a table with the header MEASURED. Without a limit, the row has no target."""
    target = verdict = "–"
    if at_most is not None:
        target, excess = f"at most {at_most:.2f}{unit}", value - at_most
    if at_least is not None:
        target, excess = f"at least {at_least:.2f}{unit}", at_least - value
    if target != "–":
        amount = f"{excess:.2f}" if excess >= 0.01 else "<0.01"
        verdict = "met" if excess <= 0 else f"missed by {amount}{unit}"
    return what, f"{value:.2f}{unit} ({detail})", target, verdict


def ratio_row(what, ours, theirs, at_most):
    """Two lists of times in ms, compared by their medians."""
    detail = (
        f"medians {median(ours):.1f} and {median(theirs):.1f} ms, "
        f"ratio of the minima {min(ours) / min(theirs):.2f}×"
    )
    return row(what, median(ours) / median(theirs), "×", detail, at_most)


def bytes_row(what, path, at_most):
    """The size of a file, in MB of 1,000,000 bytes."""
    count = path.stat().st_size
    return row(what, count / 1e6, " MB", f"{count:,} bytes", at_most)


def docs(functions) -> str:
    """A Markdown list of what the functions' docstrings say."""
    texts = (textwrap.indent(inspect.getdoc(function), "  ") for function in functions)
    return "\n".join(f"- {text[2:]}" for text in texts)


def circumstances(path):
    """The date and the machine of the measurement, whose files are below `path`."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {
        "date": datetime.date.today().isoformat(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu[1] if cpu else os.uname().machine,
        "kernel": os.uname().release,
        "file_system": file_system(path),
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def file_system(path) -> str:
    """The type of the file system at `path`, such as ext4."""
    return output("df", "--output=fstype", path).split()[-1]


def part_of(path, name) -> str:
    """The part of a document that another program has written, with its markers; or nothing."""
    text = path.read_text() if path.exists() else ""
    begin, end = markers(name)
    found = re.search(f"{re.escape(begin)}.*{re.escape(end)}\n", text, re.S)
    return found[0] if found else ""


def replace_part(path, name, text):
    """Put the text into a document, between markers; if it has none, at its end."""
    old, new = part_of(path, name), marked_part(name, text)
    document = path.read_text() if path.exists() else ""
    path.write_text(document.replace(old, new) if old else f"{document}\n{new}")


def marked_part(name, text):
    begin, end = markers(name)
    return f"{begin}\n{text}{end}\n"


def markers(name):
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
