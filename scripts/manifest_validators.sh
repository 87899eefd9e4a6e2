#!/bin/sh
# Installs the schemas of Kubernetes and compose with what reads them, for the tests.
# Prints their directory, for PYTHONPATH.
set -eu
cd "$(dirname "$0")/.."

out=$PWD/target/manifest-validators
if ! cmp -s scripts/manifest_validators.txt "$out/installed.txt"; then
    rm -rf "$out"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$out" \
        --requirement scripts/manifest_validators.txt >&2
    cp scripts/manifest_validators.txt "$out/installed.txt"
fi
echo "$out"
