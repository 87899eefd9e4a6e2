#!/bin/bash
# Builds and packages this tree twice: here, and as somebody else would, in another directory with another Cargo home,
# umask, time zone and number of jobs. Prints the hashes; exits with 1 if they differ. The arguments are those of
# package.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p target
template=$PWD/target/reproduce.XXXXXX
. scripts/job.sh

there=$work/quite/another/place
mkdir -p "$there" "$work/cargo/registry"
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$there"
# Copies the packages that Cargo has downloaded, so that this needs no network, but not the ones that it has unpacked.
home=${CARGO_HOME:-$HOME/.cargo}
for part in config.toml registry/cache registry/index; do
    if [ -e "$home/$part" ]; then cp -R "$home/$part" "$work/cargo/$part"; fi
done

unset CARGO_TARGET_DIR
build() { # directory, variables to set, command; writes the hashes to a file
    bounded 3600 env -C "$@" >&2
    (cd "$1" && sha256sum target/*-musl/release/etcdproxy target/reproduce.zip) >"$work/sums"
    cat "$work/sums"
}
rm -f target/*-musl/release/etcdproxy # removes the binary of an earlier --arch
echo "== here"
build "$PWD" ./scripts/package.sh --output target/reproduce.zip "$@"
cp "$work/sums" "$work/sums.here"
echo "== elsewhere"
umask 077
build "$there" CARGO_HOME="$work/cargo" CARGO_BUILD_JOBS=1 TZ=Asia/Tokyo LC_ALL=C \
    ./scripts/package.sh --output target/reproduce.zip "$@"

if ! cmp -s "$work/sums.here" "$work/sums"; then
    echo "reproduce.sh: the two builds differ" >&2
    exit 1
fi
echo "the two builds are the same, byte for byte"
