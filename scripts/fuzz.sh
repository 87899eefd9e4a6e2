#!/bin/bash
# Fuzzes http2/ with cargo-fuzz. Arguments: the minutes for each target (5), and the targets (all). What it finds is in
# http2/fuzz/artifacts. The corpus in the repository stays as it is; FUZZ_MINIMIZE=1 writes the smallest one with the same
# coverage back to it.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1:-5}
if [ $# -gt 1 ]; then targets=("${@:2}"); else targets=(server client hpack); fi

if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    echo "fuzz.sh: needs cargo-fuzz and a nightly toolchain: cargo install cargo-fuzz; rustup toolchain install nightly" >&2
    exit 1
fi

mkdir -p http2/fuzz/target
template=$PWD/http2/fuzz/target/corpus.XXXXXX
. scripts/job.sh
cd http2

for target in "${targets[@]}"; do
    new=$work/$target
    mkdir -p "$new" "fuzz/corpus/$target"
    # A peer's slowest second is no fault, but a memory of 500 MB is one.
    bounded $((minutes * 60 + 900)) cargo +nightly fuzz run --sanitizer none "$target" "$new" "fuzz/corpus/$target" -- \
        -max_total_time=$((minutes * 60)) -rss_limit_mb=500 -timeout=20 -max_len=8192 -print_final_stats=1 -verbosity=1
    if [ "${FUZZ_MINIMIZE:-}" = 1 ]; then
        mkdir -p "$work/min"
        cargo +nightly fuzz run --sanitizer none "$target" "$work/min" "$new" "fuzz/corpus/$target" -- -set_cover_merge=1 -max_len=600
        rm -rf "fuzz/corpus/$target"
        mv "$work/min" "fuzz/corpus/$target"
    fi
done
