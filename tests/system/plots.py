"""Draws the tables of docs/benchmarks.md and docs/reliability.md as pictures: `scripts/plots.sh`.

usage: plots.py DOCS_DIR PICTURES_DIR

Each picture exists twice, for light and for dark pages. The same tables give the same bytes.
"""

import re
import sys
from pathlib import Path
from statistics import median

from matplotlib import pyplot, rcParams

pyplot.switch_backend("svg")
# Without a salt, the names in the file are random.
rcParams["svg.hashsalt"] = "etcdproxy"
rcParams["svg.fonttype"] = "none"
rcParams["font.family"] = "sans-serif"

PAGES = {"light": ("#1f2328", "#d1d9e0"), "dark": ("#f0f6fc", "#3d444d")}
COLOURS = {"native": "#2f81f7", "grpc-proxy": "#bf8700", "direct": "#8b949e"}


def rows(text):
    """The cells of each row of the tables."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split(" | ")]


def picture(directory, name, title, draw):
    for page, (ink, grid) in PAGES.items():
        figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
        draw(axes)
        axes.set_title(title, color=ink, fontsize=12)
        axes.tick_params(colors=ink)
        axes.yaxis.label.set_color(ink)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color=grid, linewidth=0.6)
        for side, spine in axes.spines.items():
            spine.set_visible(side == "bottom")
            spine.set_color(grid)
        if legend := axes.get_legend():
            for text in legend.get_texts():
                text.set_color(ink)
        figure.savefig(directory / f"{name}-{page}.svg", transparent=True, metadata={"Date": None})
        pyplot.close(figure)


def bars(axes, groups, ways, value):
    """A group of bars for each of `groups`, with a bar for each way that has a value."""
    width = 0.8 / len(ways)
    for number, way in enumerate(ways):
        places = [place - 0.4 + width * (number + 0.5) for place in range(len(groups))]
        heights = [value(group, way) for group in groups]
        drawn = axes.bar(places, [height or 0 for height in heights], width * 0.92, color=COLOURS[way], label=way)
        labels = [f"{height:.3g}" if height is not None else "" for height in heights]
        for text in axes.bar_label(drawn, labels, fontsize=8, padding=1):
            text.set_color(COLOURS[way])
    axes.set_xticks(range(len(groups)), groups, fontsize=9)
    axes.legend(frameon=False, fontsize=9)


def throughput(docs, directory):
    """Calls a second, as a part of those of a direct connection."""
    found = {}
    for what, measured, *_ in (row for row in rows((docs / "benchmarks.md").read_text()) if len(row) >= 2):
        if parts := re.fullmatch(r"(get|put), ([\d,]+) clients, calls/s, (plain|TLS), (native|grpc-proxy)", what):
            call, clients, members, way = parts.groups()
            found[f"{call}, {clients}\n{members}", way] = float(measured.split("×")[0])
    groups = list(dict.fromkeys(group for group, _ in found))
    if len(groups) < 4:
        sys.exit("plots.py: docs/benchmarks.md has no table of throughput: run scripts/bench.sh throughput")

    def draw(axes):
        bars(axes, groups, ["native", "grpc-proxy"], lambda group, way: found.get((group, way)))
        axes.axhline(1, color=COLOURS["direct"], linewidth=1)
        axes.set_ylabel("direct = 1")

    picture(directory, "throughput", "Calls a second against a direct connection, by number of clients", draw)


def failover(docs, directory):
    """The longest time without a put, median of the libraries."""
    text = (docs / "reliability.md").read_text()
    gaps = {}
    for way in COLOURS:
        part = re.search(rf"<!-- failover {way}: begin -->(.*?)<!-- failover {way}: end -->", text, re.S)
        if not part:
            sys.exit(f"plots.py: docs/reliability.md has no table of {way}: run scripts/failover.sh --write")
        head, *cells = rows(part[1])
        for row in cells:
            for fault, cell in zip(head[1:], row[1:]):
                if seen := re.match(r"\d+/[\d.]+ · \d+/([\d.]+) · ", cell):
                    gaps.setdefault((fault, way), []).append(float(seen[1]))
    faults = list(dict.fromkeys(fault for fault, _ in gaps))

    def draw(axes):
        def value(fault, way):
            return median(gaps[fault, way]) if (fault, way) in gaps else None

        bars(axes, faults, ["native", "direct", "grpc-proxy"], value)
        axes.set_ylabel("seconds")

    picture(directory, "failover", "Longest time without a successful put, median of the client libraries", draw)


def main(docs, directory):
    directory.mkdir(parents=True, exist_ok=True)
    throughput(docs, directory)
    failover(docs, directory)


main(Path(sys.argv[1]), Path(sys.argv[2]))
