#!/bin/sh
# Builds the binary and packages it as the offline buildpack; arguments are those of `etcdproxy package`.
# The zip's path is the last line of output.
set -eu

binary=$("$(dirname "$0")/build.sh")
"$binary" package "$@"
