#!/bin/sh
# Builds the static release binary for this machine, or for the one that --arch amd64 or --arch arm64 names.
# The last line of output is its path.
set -eu
cd "$(dirname "$0")/.."

arch=$(uname -m)
case $* in
'') ;;
'--arch amd64') arch=x86_64 ;;
'--arch arm64') arch=aarch64 ;;
*) echo "usage: build.sh [--arch amd64|arm64]" >&2; exit 2 ;;
esac
./scripts/install_tools.sh build

case $(uname -m)-$arch in
x86_64-aarch64) ./scripts/install_tools.sh arm64 ;;
aarch64-x86_64) echo "build.sh: on arm64, only builds for arm64 work" >&2; exit 1 ;;
esac
if [ "$arch" = aarch64 ]; then
    variables=$(./scripts/arm64_env.sh)
    while IFS= read -r variable; do export "${variable?}"; done <<EOF
$variables
EOF
fi

# Panic messages name source files, so their paths are in the binary. They are mapped to fixed names, so that all machines
# build the same binary. If several mappings match, the last one counts.
target=$arch-unknown-linux-musl
sources=${CARGO_HOME:-$HOME/.cargo}/registry/src
cargo build --locked --release --bin etcdproxy --target "$target" --config "target.$target.rustflags = [
    '--remap-path-prefix=$PWD=/etcdproxy', '--remap-path-prefix=$sources=/cargo']" >&2
echo "${CARGO_TARGET_DIR:-$PWD/target}/$target/release/etcdproxy"
