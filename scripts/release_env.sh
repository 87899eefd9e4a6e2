#!/bin/sh
# Prints the variables that make dist, on this machine, build what build.sh builds. It sets RUSTFLAGS, which wins over
# .cargo/config.toml and over what build.sh adds to that.
set -eu
cd "$(dirname "$0")/.."

target=$(uname -m)-unknown-linux-musl
flags=$(sed -n "/^\[target\.$target\]/,/^$/s/^rustflags = \[\"\(.*\)\"\]$/\1/p" .cargo/config.toml | sed 's/", "/ /g')
[ -n "$flags" ] || { echo "release_env.sh: .cargo/config.toml has no rustflags for $target" >&2; exit 1; }
echo "RUSTFLAGS=$flags --remap-path-prefix=$PWD=/etcdproxy --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/cargo"
if [ "$(uname -m)" = aarch64 ]; then ./scripts/arm64_env.sh; fi
