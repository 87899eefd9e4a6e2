#!/bin/bash
# Measures sizes and times against their targets, prints the table and writes docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install_tools.sh build bench

mkdir -p target
template=target/bench.XXXXXX
. scripts/job.sh

unset ETCD_RELEASE_TARBALL ETCD_RELEASE_SHA256
bounded 1800 ./scripts/build.sh >"$work/built"
binary=$(tail -n 1 "$work/built")

bounded 600 ./scripts/three_binaries.sh >"$work/tarball"
tarball=$(tail -n 1 "$work/tarball")
sha256=$(sha256sum "$tarball" | cut -d ' ' -f 1)
triple=$(uname -m)-unknown-linux-musl
bounded 1800 env ETCD_RELEASE_TARBALL="$tarball" ETCD_RELEASE_SHA256="$sha256" \
    cargo build --locked --release --bin etcdproxy --target "$triple" --target-dir target/three

bounded 600 python3 scripts/bench.py "$binary" "target/three/$triple/release/etcdproxy" "$work" docs/benchmarks.md
