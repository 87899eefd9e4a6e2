#!/bin/sh
# Builds the static release binary. Its path is the last line of output.
set -eu
cd "$(dirname "$0")/.."

./scripts/install_tools.sh build
target=$(uname -m)-unknown-linux-musl
cargo build --locked --release --bin etcdproxy --target "$target" >&2
echo "${CARGO_TARGET_DIR:-$PWD/target}/$target/release/etcdproxy"
