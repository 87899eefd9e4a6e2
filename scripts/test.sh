#!/bin/sh
# Everything a change must pass. The tests run the static release binary, the one that ships.
set -eu
cd "$(dirname "$0")/.."

./scripts/install_tools.sh build clients test

echo "== format, lints, shell scripts"
cargo fmt --check
cargo clippy --locked --all-targets --quiet -- --deny warnings
shellcheck scripts/*.sh .ci/run

echo "== the release binary"
ETCDPROXY_TEST_BINARY=$(./scripts/build.sh)
export ETCDPROXY_TEST_BINARY
echo "$ETCDPROXY_TEST_BINARY: $(wc -c <"$ETCDPROXY_TEST_BINARY") bytes"

echo "== tests"
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --locked "$@"
fi
exec cargo test --locked "$@"
