#!/bin/bash
# Measures what an application sees while members die, hang and come back, and prints the table; about half an hour.
# With words as arguments, only the rows that have one of them in their names, as in "leader, grpc-proxy"; without,
# all, and it writes docs/reliability.md. ETCDPROXY_TEST_BINARY names a binary to take instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install_tools.sh clients chaos

mkdir -p target
template=target/chaos.XXXXXX # on a disk: etcd waits for it before it acknowledges a write
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

# In a network of its own, with addresses for the members' peers, and whose rules can be changed: the table of local
# addresses is not the first that is asked.
# shellcheck disable=SC2016 # for the inner shell
network='set -e; ip link set lo up; for n in 1 2 3; do ip addr add 10.0.0.$n/32 dev lo; done
    ip rule add pref 10 lookup local; ip rule del pref 0; exec "$@"'
bounded 3600 unshare --net sh -c "$network" sh python3 -B scripts/chaos.py "$binary" "$client" "$work" docs/reliability.md "$@"
