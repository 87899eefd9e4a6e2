#!/bin/sh
# Builds the binary and packages it as the offline buildpack; arguments are those of `etcdproxy package`. With --arch,
# builds what that needs. The zip's path is the last line of output.
set -eu
build=$(dirname "$0")/build.sh

binary=$("$build")
if [ "$(uname -m)" = x86_64 ]; then other=arm64; else other=amd64; fi
case " $* " in
*" --arch $other "* | *" --arch both "*) set -- "$@" --other "$("$build" --arch "$other")" ;;
esac
"$binary" package "$@"
