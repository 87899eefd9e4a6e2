#!/bin/sh
# Shows that upstream's tarball holds the very etcd that a build without it takes from its Cargo package, and names it for
# a build from it: official_tarball.sh amd64|arm64 [TARBALL]. Without TARBALL it is downloaded. On stdout are variables
# for that build. A hash that manifest.yml does not know is looked up in upstream's SHA256SUMS, beside the tarball.
set -eu
arch=$1
tarball=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."

fail() {
    echo "official_tarball.sh: $*" >&2
    exit 1
}
known() { # beginning of the line in this architecture's part of manifest.yml
    awk -v key="$1" -v arch="$arch" '
        /^  arch: / { here = $2 == arch }
        /^- / { here = 0 }
        here && index($0, key) == 1 { print $2; exit }' manifest.yml
}

uri=$(known "  uri: ")
[ -n "$uri" ] || fail "manifest.yml knows no etcd for $arch"
name=${uri##*/}
if [ -z "$tarball" ]; then
    tarball=$PWD/target/official/$name
    mkdir -p target/official
    for url in "$uri" "${uri%/*}/SHA256SUMS"; do
        curl --fail --silent --show-error --location --retry 3 --output "target/official/${url##*/}" "$url" >&2
    done
fi

actual=$(sha256sum "$tarball" | cut -d ' ' -f 1)
expected=$(known "  sha256: ")
source=manifest.yml
if [ -z "$expected" ]; then
    source=$(dirname "$tarball")/SHA256SUMS
    [ -f "$source" ] || fail "manifest.yml does not know the hash of $name, and there is no $source"
    expected=$(awk -v name="$name" '$2 == name || $2 == "*" name { print $1 }' "$source")
fi
[ "$actual" = "$expected" ] || fail "$tarball has sha256 $actual, but $source says ${expected:-nothing of $name}"
echo "$name has the sha256 that $source gives: $actual" >&2

official=$(tar -xzOf "$tarball" "${name%.tar.gz}/etcd" | sha256sum | cut -d ' ' -f 1)
package=$(sha256sum "$(./scripts/packaged_etcd.sh "$arch")" | cut -d ' ' -f 1)
for etcd in "$official" "$package"; do
    [ "$etcd" = "$(known "    sha256: ")" ] ||
        fail "not the same etcd: in $name $official, in the package $package, in manifest.yml $(known "    sha256: ")"
done
echo "the etcd in it and the one in the Cargo package are the same file, that of manifest.yml: sha256 $official" >&2

echo "ETCD_RELEASE_TARBALL=$tarball"
[ "$source" = manifest.yml ] || echo "ETCD_RELEASE_SHA256=$actual"
