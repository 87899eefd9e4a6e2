#!/bin/sh
# Runs everything that a change must pass. The tests run the static release binary, like the one in a release.
set -eu
cd "$(dirname "$0")/.."

./scripts/install_tools.sh build clients test

echo "== format, lints, shell scripts"
cargo fmt --all --check
cargo clippy --locked --all-targets --quiet -- --deny warnings
shellcheck -x scripts/*.sh .ci/run
for script in scripts/*; do
    grep -qF "$script" justfile || { echo "test.sh: the justfile does not list $script" >&2; exit 1; }
done

echo "== the release binary"
ETCDPROXY_TEST_BINARY=$(./scripts/build.sh)
export ETCDPROXY_TEST_BINARY
echo "$ETCDPROXY_TEST_BINARY: $(wc -c <"$ETCDPROXY_TEST_BINARY") bytes"

skip=
echo "== the binary for arm64"
if [ "$(uname -m)" != x86_64 ]; then
    echo "SKIPPED: on $(uname -m), it is the binary above, or there is no build for arm64"
    skip="$skip arm64::"
else
    ETCDPROXY_TEST_ARM64=$(./scripts/build.sh --arch arm64)
    export ETCDPROXY_TEST_ARM64
    echo "$ETCDPROXY_TEST_ARM64: $(wc -c <"$ETCDPROXY_TEST_ARM64") bytes"
    if ! ./scripts/as_arm64.sh "$ETCDPROXY_TEST_ARM64" version; then
        echo "SKIPPED: its tests: this machine cannot run programs for arm64 (that needs Linux 6.7 and user namespaces)"
        skip="$skip arm64::"
    fi
fi

echo "== a debug build with three programs"
tarball=$(./scripts/three_binaries.sh)
ETCD_RELEASE_TARBALL=$tarball ETCD_RELEASE_SHA256=$(sha256sum "$tarball" | cut -d' ' -f1) \
    cargo build --locked --quiet --target-dir target/three
export ETCDPROXY_TEST_THREE="$PWD/target/three/debug/etcdproxy"

echo "== validators for bills of materials"
ETCDPROXY_TEST_SBOM_VALIDATORS=$(./scripts/validators.sh sbom)
export ETCDPROXY_TEST_SBOM_VALIDATORS

echo "== schemas of manifests"
ETCDPROXY_TEST_MANIFEST_VALIDATORS=$(./scripts/validators.sh manifest)
export ETCDPROXY_TEST_MANIFEST_VALIDATORS

echo "== promtool, which reads metrics and alerts"
ETCDPROXY_TEST_PROMTOOL=$(./scripts/promtool.sh)
export ETCDPROXY_TEST_PROMTOOL

if [ "$(id -u)" = 0 ]; then
    echo "== system tests: stagings and launches like on Cloud Foundry"
    ./scripts/integration.sh
    echo "== system tests: the service on a Debian with systemd"
    ./scripts/service.sh
else
    echo "== SKIPPED: scripts/integration.sh and scripts/service.sh need root"
fi

echo "== tests, including those that a plain cargo test ignores"
# Without root, the tests in modules called needs_root are skipped, and counted as such.
[ "$(id -u)" = 0 ] || skip="$skip needs_root"
if cargo nextest --version >/dev/null 2>&1; then
    filter=
    for name in $skip; do filter="$filter${filter:+ and }not test($name)"; done
    [ -z "$filter" ] || set -- "$@" -E "$filter"
    exec cargo nextest run --locked --run-ignored all "$@"
fi
for name in $skip; do set -- "$@" --skip "$name"; done
exec cargo test --locked --no-fail-fast -- --include-ignored --test-threads=2 "$@"
