#!/bin/sh
# Prints the path of the etcd in the Cargo package that builds use: packaged_etcd.sh amd64|arm64
set -eu
cd "$(dirname "$0")/.."

dir=$(cargo metadata --locked --format-version 1 |
    grep -o "\"manifest_path\":\"[^\"]*/etcd-bin-vendored-linux-$1[^/\"]*/Cargo.toml\"" | cut -d '"' -f 4 | xargs dirname)
[ -f "$dir/bin/etcd" ] || { echo "packaged_etcd.sh: no bin/etcd in $dir" >&2; exit 1; }
echo "$dir/bin/etcd"
