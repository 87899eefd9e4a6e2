#!/bin/sh
# Checks that upstream's tarball holds the same etcd as the Cargo package: official_tarball.sh amd64|arm64 [TARBALL].
# Without TARBALL, it downloads the tarball. Prints the variable to set for a build from it.
set -eu
arch=$1
tarball=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."

fail() {
    echo "official_tarball.sh: $*" >&2
    exit 1
}
known() { # start of a line in this architecture's part of manifest.yml
    awk -v key="$1" -v arch="$arch" '
        /^  arch: / { here = $2 == arch }
        /^- / { here = 0 }
        here && index($0, key) == 1 { print $2; exit }' manifest.yml
}

uri=$(known "  uri: ")
[ -n "$uri" ] || fail "manifest.yml has no etcd for $arch"
name=${uri##*/}
expected=$(known "  sha256: ")
tag=${uri%/*}
[ -n "$expected" ] || fail "manifest.yml has no sha256 of $name: ./scripts/bump_etcd.sh ${tag##*/v} SHA256SUMS takes it from" \
    "upstream's file SHA256SUMS; then review and commit it"
if [ -z "$tarball" ]; then
    tarball=$PWD/target/official/$name
    mkdir -p target/official
    curl --fail --silent --show-error --location --retry 3 --output "$tarball" "$uri" >&2
fi
actual=$(sha256sum "$tarball" | cut -d ' ' -f 1)
[ "$actual" = "$expected" ] || fail "$tarball has sha256 $actual, but manifest.yml expects $expected"
echo "$name has the sha256 of manifest.yml: $actual" >&2

official=$(tar -xzOf "$tarball" "${name%.tar.gz}/etcd" | sha256sum | cut -d ' ' -f 1)
package=$(sha256sum "$(./scripts/packaged_etcd.sh "$arch")" | cut -d ' ' -f 1)
for etcd in "$official" "$package"; do
    [ "$etcd" = "$(known "    sha256: ")" ] ||
        fail "etcd is not the same everywhere: in $name $official, in the package $package, in manifest.yml $(known "    sha256: ")"
done
echo "its etcd is the same file as in the Cargo package and in manifest.yml: sha256 $official" >&2

echo "ETCD_RELEASE_TARBALL=$tarball"
