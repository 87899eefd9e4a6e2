#!/bin/sh
# Writes the manual pages and completions of a release into target/pages.
set -eu
cd "$(dirname "$0")/.."

pages=target/pages
cargo build --locked --quiet
etcdproxy=${CARGO_TARGET_DIR:-target}/debug/etcdproxy
rm -rf $pages
mkdir -p $pages/completions
"$etcdproxy" man $pages/man >&2
"$etcdproxy" completions bash >$pages/completions/etcdproxy.bash
"$etcdproxy" completions zsh >$pages/completions/_etcdproxy
"$etcdproxy" completions fish >$pages/completions/etcdproxy.fish
