#!/bin/sh
# Builds the archive that a release would have for this machine, into target/distrib. Takes etcd from ETCD_RELEASE_TARBALL
# if that is set. First checks that the workflow is the one that dist-workspace.toml describes.
set -eu
cd "$(dirname "$0")/.."

./scripts/install_tools.sh build
dist_version=$(sed -n 's/^cargo-dist-version = "\(.*\)"/\1/p' dist-workspace.toml)
# The first time, this takes some minutes.
command -v dist >/dev/null 2>&1 || cargo install --locked --quiet "cargo-dist@$dist_version" >&2
command -v cargo-auditable >/dev/null 2>&1 || cargo install --locked --quiet cargo-auditable >&2

target=$(uname -m)-unknown-linux-musl
./scripts/pages.sh
dist plan
variables=$(./scripts/release_env.sh)
while IFS= read -r variable; do export "${variable?}"; done <<EOF
$variables
EOF
dist build --artifacts=local --target "$target"
