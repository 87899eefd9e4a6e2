#!/bin/sh
# Installs the official validators of CycloneDX and SPDX with their schemas, for the tests.
# Prints their directory, for PYTHONPATH.
set -eu
cd "$(dirname "$0")/.."

out=$PWD/target/sbom-validators
if ! cmp -s scripts/sbom_validators.txt "$out/installed.txt"; then
    rm -rf "$out"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$out" \
        --requirement scripts/sbom_validators.txt >&2
    cp scripts/sbom_validators.txt "$out/installed.txt"
fi
echo "$out"
