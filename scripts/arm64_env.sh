#!/bin/sh
# Prints the variables for a build for arm64, on amd64 or natively, so that both give the same kind of binary.
set -eu
cd "$(dirname "$0")/.."

# With glibc's headers: on amd64 there are no others. ARCHITECTURE.md says why that is sound.
echo CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
echo AR_aarch64_unknown_linux_musl=aarch64-linux-gnu-ar
echo "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=$PWD/scripts/link_arm64.sh"
