#!/bin/bash
# Measures sizes, times, throughput and memory, compares them with their targets, prints the tables and writes
# docs/benchmarks.md. `bench.sh throughput` and `bench.sh watches` measure only what needs a cluster, which takes about
# 10 and 5 minutes, and replace only that section. ETCDPROXY_BENCH_ROUNDS=1 makes that short and its figures rough.
# ETCDPROXY_TEST_BINARY names a binary to use instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:-all}
case $what in
    all | throughput | watches) ;;
    *)
        echo "bench.sh: invalid argument \"$what\": expected throughput or watches, or nothing to measure everything" >&2
        exit 2
        ;;
esac

./scripts/install_tools.sh build clients bench

mkdir -p target
template=target/bench.XXXXXX
. scripts/job.sh

unset ETCD_RELEASE_TARBALL ETCD_RELEASE_SHA256
binary=${ETCDPROXY_TEST_BINARY:-}
if [ -z "$binary" ]; then
    bounded 1800 ./scripts/build.sh >"$work/built"
    binary=$(tail -n 1 "$work/built")
fi
# Optimised for speed, so that the client is not the bottleneck.
bounded 1800 cargo build --locked --quiet --release --example client --target-dir target/client \
    --config profile.release.opt-level=3 --config profile.release.lto=false --config profile.release.codegen-units=16

if [ "$what" = all ]; then
    bounded 600 ./scripts/three_binaries.sh >"$work/tarball"
    tarball=$(tail -n 1 "$work/tarball")
    sha256=$(sha256sum "$tarball" | cut -d ' ' -f 1)
    triple=$(uname -m)-unknown-linux-musl
    bounded 1800 env ETCD_RELEASE_TARBALL="$tarball" ETCD_RELEASE_SHA256="$sha256" \
        cargo build --locked --release --bin etcdproxy --target "$triple" --target-dir target/three

    bounded 600 python3 -B tests/system/bench.py "$binary" "target/three/$triple/release/etcdproxy" "$work" docs/benchmarks.md
fi
client=target/client/release/examples/client
for part in throughput watches; do
    case $what in
        all | "$part") bounded 1200 python3 -B "tests/system/$part.py" "$binary" "$client" "$work" docs/benchmarks.md ;;
    esac
done
