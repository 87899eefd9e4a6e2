#!/bin/bash
# Measures what applications with other people's client libraries see while members die, hang and come back: directly, through
# etcd's grpc-proxy and through native. Prints the tables and writes its part of docs/reliability.md; takes up to 45 minutes.
# With words as arguments, such as "aetcd", it measures only the libraries with one of them in their names, and writes nothing.
# --ways direct,grpc-proxy,native and --faults kill,leader choose too; `--ways native --write` replaces the tables of these ways.
# --keep DIRECTORY keeps all logs; --help says more.
#
# The libraries come from where scripts/suites.sh has them from, with ETCDPROXY_SUITES_DIR too. What cannot be had is SKIPPED.
# ETCDPROXY_TEST_BINARY names a binary to use instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."

for argument in "$@"; do
    case $argument in
        -h | --help) exec python3 -B tests/system/failover.py --help ;;
    esac
done

./scripts/install_tools.sh clients suites

mkdir -p target
template=target/failover.XXXXXX # on a disk, because etcd waits for it before it acknowledges a write
. scripts/job.sh

binary=${ETCDPROXY_TEST_BINARY:-}
if [ -z "$binary" ]; then
    bounded 1800 ./scripts/build.sh >"$work/built"
    binary=$(tail -n 1 "$work/built")
fi
bounded 1800 cargo build --locked --quiet --example failover
rust=${CARGO_TARGET_DIR:-target}/debug/examples/failover

set -- "$binary" "$rust" target/suites "$work" docs/reliability.md "$@"
bounded 3600 python3 -B tests/system/failover.py prepare "$@"
bounded 7200 python3 -B tests/system/failover.py measure "$@"
