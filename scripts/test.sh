#!/bin/sh
# Everything a change must pass. The tests run the static release binary, the one that ships.
set -eu
cd "$(dirname "$0")/.."

./scripts/install_tools.sh build clients test

echo "== format, lints, shell scripts"
cargo fmt --check
cargo clippy --locked --all-targets --quiet -- --deny warnings
shellcheck -x scripts/*.sh .ci/run

echo "== the release binary"
ETCDPROXY_TEST_BINARY=$(./scripts/build.sh)
export ETCDPROXY_TEST_BINARY
echo "$ETCDPROXY_TEST_BINARY: $(wc -c <"$ETCDPROXY_TEST_BINARY") bytes"

echo "== a debug build with three programs"
tarball=$(./scripts/three_binaries.sh)
ETCD_RELEASE_TARBALL=$tarball ETCD_RELEASE_SHA256=$(sha256sum "$tarball" | cut -d' ' -f1) \
    cargo build --locked --quiet --target-dir target/three
export ETCDPROXY_TEST_THREE="$PWD/target/three/debug/etcdproxy"

echo "== validators for bills of materials"
ETCDPROXY_TEST_SBOM_VALIDATORS=$(./scripts/sbom_validators.sh)
export ETCDPROXY_TEST_SBOM_VALIDATORS

if [ "$(id -u)" = 0 ]; then
    echo "== stagings and launches as Cloud Foundry does them"
    ./scripts/integration.sh
    echo "== a Debian with systemd, and etcdproxy installed there"
    ./scripts/service.sh
else
    echo "== SKIPPED: scripts/integration.sh and scripts/service.sh need root"
fi

echo "== tests"
# Tests that need root carry it in their names; without it they are skipped and counted as such.
if cargo nextest --version >/dev/null 2>&1; then
    [ "$(id -u)" = 0 ] || set -- "$@" -E 'not test(needs_root)'
    exec cargo nextest run --locked "$@"
fi
[ "$(id -u)" = 0 ] || set -- "$@" --skip needs_root
exec cargo test --locked -- --test-threads=2 "$@"
