#!/bin/bash
# Stages and launches the fixtures like Cloud Foundry, with a real etcd. With words as arguments, it runs only the cases
# with one of them in their names. ETCDPROXY_TEST_BINARY names a binary to use instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "integration.sh: needs root, for namespaces and another user" >&2
    exit 77
fi
./scripts/install_tools.sh integration

template=${TMPDIR:-/tmp}/etcdproxy.XXXXXX
. scripts/job.sh

binary=${ETCDPROXY_TEST_BINARY:-}
if [ -z "$binary" ]; then binary=$(./scripts/build.sh); fi
zip=$work/etcdproxy_buildpack.zip
timeout 60 "$binary" package --output "$zip" >/dev/null

# Debian's own Python, which has Debian's python3-yaml.
bounded 900 /usr/bin/python3 -B tests/system/lifecycle.py "$zip" "$binary" "$work" "$@"
