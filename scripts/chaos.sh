#!/bin/bash
# Measures what an application sees while members die, hang and come back. Prints the table and writes
# docs/reliability.md; takes about half an hour. With words as arguments, such as "leader, grpc-proxy", it measures only
# the rows with one of them in their names, and writes nothing. ETCDPROXY_TEST_BINARY names a binary to use instead of
# building one.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install_tools.sh clients chaos

mkdir -p target
template=target/chaos.XXXXXX # on a disk, because etcd waits for it before it acknowledges a write
. scripts/job.sh

if [ "$(id -u)" != 0 ]; then
    echo "chaos.sh: needs root, for a network of its own" >&2
    exit 77
fi

binary=${ETCDPROXY_TEST_BINARY:-}
if [ -z "$binary" ]; then
    bounded 1800 ./scripts/build.sh >"$work/built"
    binary=$(tail -n 1 "$work/built")
fi
bounded 1800 cargo build --locked --quiet --example client
client=${CARGO_TARGET_DIR:-target}/debug/examples/client

# The members' peers get addresses in a network of their own. A rule can cut one of them off, because the table of local
# addresses is no longer the first that Linux looks at.
# shellcheck disable=SC2016 # for the inner shell
network='set -e; ip link set lo up; for n in 1 2 3; do ip addr add 10.0.0.$n/32 dev lo; done
    ip rule add pref 10 lookup local; ip rule del pref 0; exec "$@"'
bounded 3600 unshare --net sh -c "$network" sh python3 -B tests/system/chaos.py "$binary" "$client" "$work" docs/reliability.md "$@"
