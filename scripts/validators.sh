#!/bin/sh
# Installs what validates documents in the tests, pinned in scripts/NAME_validators.txt, and prints its directory, for PYTHONPATH.
# Argument: sbom (the official validators of CycloneDX and SPDX) or manifest (the schemas of Kubernetes and compose).
set -eu
cd "$(dirname "$0")/.."

case ${1-} in
sbom | manifest) ;;
*) echo "validators.sh: invalid name \"${1-}\": expected sbom or manifest" >&2; exit 2 ;;
esac
pinned=scripts/$1_validators.txt
out=$PWD/target/$1-validators
if ! cmp -s "$pinned" "$out/installed.txt"; then
    rm -rf "$out"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$out" --requirement "$pinned" >&2
    cp "$pinned" "$out/installed.txt"
fi
echo "$out"
