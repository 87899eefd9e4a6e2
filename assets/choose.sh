#!/bin/sh
# Runs the etcdproxy for this machine's architecture, which is beside this script.
[ -x "$0-$(uname -m)" ] || { echo "etcdproxy: error: this buildpack is for x86_64 and aarch64, not for $(uname -m)" >&2; exit 1; }
exec "$0-$(uname -m)" "$@"
