#!/bin/sh
# Prints the flags that .cargo/config.toml and build.sh have for a target: dist sets RUSTFLAGS, which wins over them.
set -eu
cd "$(dirname "$0")/.."

flags=$(sed -n "/^\[target\.$1\]/,/^$/s/^rustflags = \[\"\(.*\)\"\]$/\1/p" .cargo/config.toml | sed 's/", "/ /g')
[ -n "$flags" ] || { echo "rustflags.sh: .cargo/config.toml has none for $1" >&2; exit 1; }
echo "$flags --remap-path-prefix=$PWD=/etcdproxy --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/cargo"
