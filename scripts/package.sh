#!/bin/sh
# Builds the binary and packages it, as the offline buildpack or in another --format. The arguments are those of
# `etcdproxy package`; for --arch, it also builds the other binary if needed. The last line of output is the package's path.
set -eu
build=$(dirname "$0")/build.sh

binary=$("$build")
if [ "$(uname -m)" = x86_64 ]; then other=arm64; else other=amd64; fi
case " $* " in
*" --arch $other "* | *" --arch both "*) set -- "$@" --other "$("$build" --arch "$other")" ;;
esac
"$binary" package "$@"
