#!/bin/sh
# Checks all crates with cargo-deny: licences, sources, bans and, if their database can be reached, known vulnerabilities.
set -eu
cd "$(dirname "$0")/.."

command -v cargo-deny >/dev/null 2>&1 || cargo install --locked --quiet cargo-deny >&2 # takes some minutes

cargo deny --locked check licenses sources bans

database=https://github.com/rustsec/advisory-db
if ! GIT_TERMINAL_PROMPT=0 timeout 30 git ls-remote --quiet "$database" HEAD >/dev/null 2>&1; then
    echo "deny.sh: NOT CHECKED: advisories: cannot reach their database $database" >&2
    exit
fi
cargo deny --locked check advisories
