#!/bin/bash
# Attacks our own program, on loopback and in namespaces of its own, and checks that nothing is lost. Prints the table and
# writes its part of docs/reliability.md; takes up to half an hour. With words as arguments, such as "members", it runs only the
# rows with one of them in their names, and writes nothing. ETCDPROXY_TEST_BINARY names a binary to use instead of a debug
# build, ETCDPROXY_TEST_THREE a debug build with three programs.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install_tools.sh clients attack

mkdir -p target
template=target/attack.XXXXXX
. scripts/job.sh

if [ "$(id -u)" != 0 ]; then
    echo "attack.sh: needs root, for networks, mounts and a memory cgroup of its own" >&2
    exit 77
fi

if ! cargo nextest --version >/dev/null 2>&1; then
    echo "attack.sh: needs cargo-nextest: please install it (https://nexte.st)" >&2
    exit 1
fi

if [ -z "${ETCDPROXY_TEST_THREE:-}" ]; then
    tarball=$(./scripts/three_binaries.sh)
    ETCD_RELEASE_TARBALL=$tarball ETCD_RELEASE_SHA256=$(sha256sum "$tarball" | cut -d' ' -f1) \
        bounded 1800 cargo build --locked --quiet --target-dir target/three
    export ETCDPROXY_TEST_THREE="$PWD/target/three/debug/etcdproxy"
fi
bounded 1800 cargo nextest run --locked --no-run

bounded 3600 python3 -B tests/system/attack.py docs/reliability.md "$@"
