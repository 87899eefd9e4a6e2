#!/bin/sh
# The linker of a build for arm64: Debian's, with the flags for a static position-independent binary. rustc passes such
# flags for amd64, but not for arm64.
set -eu

for arg; do
    shift
    case $arg in
    -no-pie) arg=-static-pie ;;
    */crt1.o) arg=${arg%crt1.o}rcrt1.o ;;
    */crtbegin.o | */crtend.o) arg=${arg%.o}S.o ;;
    esac
    if [ "$arg" != -static ]; then set -- "$@" "$arg"; fi
done
exec aarch64-linux-gnu-gcc "$@"
