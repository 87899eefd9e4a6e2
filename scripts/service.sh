#!/bin/bash
# Installs etcdproxy on a bare Debian with a real systemd, in a container, and tests the service: start, stop, boot,
# upgrade, the guide to air-gapped hosts (docs/air-gapped.md). With words as arguments, it runs only the cases with one of them in
# their names. ETCDPROXY_TEST_THREE must name a binary with another etcd, as scripts/test.sh makes one.
# ETCDPROXY_TEST_BINARY names a binary to use instead of building one.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "service.sh: needs root, for a container" >&2
    exit 77
fi
other=${ETCDPROXY_TEST_THREE:-}
if [ ! -x "$other" ]; then
    echo "service.sh: ETCDPROXY_TEST_THREE is not set to a binary with another etcd: scripts/test.sh shows how to build one" >&2
    exit 2
fi
./scripts/install_tools.sh clients service

# The image is made once. Each case boots a copy.
image=$PWD/target/service/bookworm
if [ ! -e "$image.complete" ]; then
    rm -rf "$image"
    mkdir -p "$image"
    timeout 600 debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus bookworm "$image" >"$image.log" ||
        { tail -n 5 "$image.log" >&2; exit 1; }
    : >"$image.complete"
fi

mkdir -p target
template=$PWD/target/service/work.XXXXXX
. scripts/job.sh

binary=${ETCDPROXY_TEST_BINARY:-}
if [ -z "$binary" ]; then binary=$(./scripts/build.sh); fi
bounded 1800 cargo build --locked --quiet --example client
client=${CARGO_TARGET_DIR:-target}/debug/examples/client

bounded 900 python3 -B tests/system/service.py "$binary" "$other" "$client" "$work" "$image" "$@"
