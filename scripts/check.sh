#!/bin/bash
# Drives random histories through mode native against three real members, compares what each watch hears with the truth, and
# writes its part of docs/reliability.md. Argument: how many minutes it takes in all (60). ETCDPROXY_TEST_BINARY names a binary to
# use instead of a debug build. ETCDPROXY_CHECK_SEED is the first seed of each row.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=${1:-60}
case $minutes in
    *[!0-9]* | 0 | "")
        echo "check.sh: invalid number of minutes \"$minutes\": expected a whole number, such as 60" >&2
        exit 2
        ;;
esac

./scripts/install_tools.sh clients

mkdir -p target
template=target/check.XXXXXX
. scripts/job.sh

bounded 1800 cargo test --locked --quiet --test it --no-run
bounded $((minutes * 60 + 1800)) python3 -B tests/system/check.py docs/reliability.md "$minutes"
