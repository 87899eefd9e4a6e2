#!/bin/bash
# Runs the published tests of other people's client libraries on a cluster of three members, directly and through the
# sidecar, and says which tests pass directly and fail through the sidecar. Writes the table into docs/clients.md. With
# words as arguments, such as "aetcd", it runs only the suites with one of them in their names, and writes nothing.
# --ways direct,grpc-proxy,native,namespace chooses the ways, --keep DIRECTORY keeps the suites' output.
#
# The suites come from PyPI, Cargo's registry and git. What git cannot reach is taken from the directory that
# ETCDPROXY_SUITES_DIR names, for example its node-etcd3, or is SKIPPED. ETCDPROXY_TEST_BINARY names a binary to use
# instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install_tools.sh clients suites

mkdir -p target
template=${TMPDIR:-/tmp}/suites.XXXXXX # not on a slow disk: the suites measure what is right, not how fast
. scripts/job.sh

if [ "$(id -u)" != 0 ]; then
    echo "suites.sh: needs root, for a network of its own" >&2
    exit 77
fi

binary=${ETCDPROXY_TEST_BINARY:-}
if [ -z "$binary" ]; then
    bounded 1800 ./scripts/build.sh >"$work/built"
    binary=$(tail -n 1 "$work/built")
fi
# Several suites prepare their tests with etcdctl.
mkdir "$work/tools"
etcdctl=$(command -v etcdctl || true)
if [ -z "$etcdctl" ]; then
    tarball=$(./scripts/three_binaries.sh)
    etcdctl=${tarball%.tar.gz}/etcdctl
fi
ln -s "$etcdctl" "$work/tools/etcdctl"

set -- "$binary" "$work/tools" target/suites "$work" docs/clients.md "$@"
bounded 3600 python3 -B tests/system/suites.py prepare "$@"

# In it, every suite finds etcd on localhost:2379, and sees only the processes of this run.
# shellcheck disable=SC2016 # for the inner shell
alone='ip link set lo up; exec "$@"'
bounded 7200 unshare --net --pid --fork --kill-child --mount-proc \
    sh -c "$alone" sh python3 -B tests/system/suites.py run "$@"
