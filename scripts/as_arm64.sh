#!/bin/sh
# Runs a command that can start programs for arm64 like any others. The kernel runs them with qemu, but only in this
# command's own user namespace: nothing changes for the rest of the machine. Needs Linux 6.7.
set -eu

if [ "$(uname -m)" = aarch64 ]; then exec "$@"; fi
qemu=$(command -v qemu-aarch64-static) ||
    { echo "as_arm64.sh: qemu-aarch64-static is missing: install qemu-user-static" >&2; exit 1; }

# The ELF header to match, and a mask of the bits that count. P keeps argv[0], F opens qemu now.
# https://docs.kernel.org/admin-guide/binfmt-misc.html
header='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
rule=":arm64:M::$header:$mask:$qemu:PF"
# shellcheck disable=SC2016 # for the inner shell
exec unshare --user --map-root-user --mount sh -euc '
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    printf %s "$1" >/proc/sys/fs/binfmt_misc/register
    shift
    exec "$@"' sh "$rule" "$@"
