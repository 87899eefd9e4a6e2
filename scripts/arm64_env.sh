#!/bin/sh
# Prints the variables for a build for arm64. Builds on amd64 and on arm64 then give the same kind of binary.
set -eu
cd "$(dirname "$0")/.."

# This compiler uses glibc's headers, the only ones for arm64 on amd64. ARCHITECTURE.md explains why that is sound.
echo CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc
echo AR_aarch64_unknown_linux_musl=aarch64-linux-gnu-ar
echo "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=$PWD/scripts/link_arm64.sh"
