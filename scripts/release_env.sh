#!/bin/sh
# Prints the variables with which dist builds the same binary as build.sh on this machine. dist sets RUSTFLAGS, which
# replaces the flags of .cargo/config.toml, so all flags are in that variable.
set -eu
cd "$(dirname "$0")/.."

target=$(uname -m)-unknown-linux-musl
flags=$(sed -n "/^\[target\.$target\]/,/^$/s/^rustflags = \[\"\(.*\)\"\]$/\1/p" .cargo/config.toml | sed 's/", "/ /g')
[ -n "$flags" ] || { echo "release_env.sh: .cargo/config.toml has no rustflags for $target" >&2; exit 1; }
echo "RUSTFLAGS=$flags --remap-path-prefix=$PWD=/etcdproxy --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/cargo"
if [ "$(uname -m)" = aarch64 ]; then ./scripts/arm64_env.sh; fi
