#!/bin/bash
# Opens the status page in a real browser, kills members behind it, and checks what it shows. Argument: the directory for
# pictures of the page (target/pictures). Installs Chromium, which takes 300 MB. ETCDPROXY_TEST_BINARY names a binary to use
# instead of a debug build.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/install_tools.sh clients page

mkdir -p target
template=target/page.XXXXXX
. scripts/job.sh
mkdir -p "$work/labs"

bounded 1800 cargo build --locked --quiet --example client
binary=${ETCDPROXY_TEST_BINARY:-}
if [ -z "$binary" ]; then
    bounded 1800 cargo build --locked --quiet
    binary=${CARGO_TARGET_DIR:-target}/debug/etcdproxy
fi
client=${CARGO_TARGET_DIR:-target}/debug/examples/client
bounded 600 python3 -B tests/system/page.py "$(realpath "$binary")" "$(realpath "$client")" "$(realpath "$work")/labs" "$(realpath -m "${1:-target/pictures}")"
