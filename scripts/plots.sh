#!/bin/bash
# Draws the tables of docs/benchmarks.md and docs/reliability.md as pictures, in docs/images.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install_tools.sh plots
# Debian's own Python has Debian's packages.
/usr/bin/python3 -B tests/system/plots.py docs docs/images
