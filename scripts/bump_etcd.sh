#!/bin/bash
# Moves to another etcd: bump_etcd.sh VERSION [SHA256SUMS]. VERSION can be "newest". The script computes the hashes of
# the programs from their packages. It takes those of the tarballs from upstream's file SHA256SUMS of that version, and
# leaves them out without it. On any error it restores all files.
set -euo pipefail
sums=${2:+$(realpath "$2")}
cd "$(dirname "$0")/.."

fail() {
    echo "bump_etcd.sh: $*" >&2
    exit 1
}
hash_of() { sha256sum "$1" | cut -d ' ' -f 1; }

version=${1:-}
newest() { # runs in another directory, because here Cargo would print the version in Cargo.lock
    (cd / && cargo info --quiet "etcd-bin-vendored-linux-$1") | sed -n 's/^version: \([^ ]*\).*/\1/p'
}
if [ "$version" = newest ]; then
    version=$(newest amd64)
    arm64=$(newest arm64)
    if [ "$version" != "$arm64" ]; then
        echo "the newest package for amd64 is $version, for arm64 $arm64: nothing changes until they are the same"
        exit
    fi
fi
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "invalid version \"$version\": expected one like 3.7.2, or newest"
[ -z "$sums" ] || grep -q " .*etcd-v$version-linux-" "$sums" || fail "$sums has no tarball of etcd $version for Linux"
old=$(sed -n '/^default_versions:/,/^dependencies:/s/^  version: //p' manifest.yml)
if [ "$version" = "$old" ] && [ -z "$sums" ]; then
    echo "etcd $version is already the current one"
    exit
fi

# The other pages say what was measured with which etcd.
pages=(README.md docs/{air-gapped,cloud-foundry,commands,metrics,upgrades,verifying}.md)

work=$(mktemp -d)
mkdir "$work/before"
cp -p --parents Cargo.toml Cargo.lock manifest.yml CHANGELOG.md "${pages[@]}" "$work/before"
undo() {
    cp -pr "$work"/before/. .
    rm -rf "$work"
}
trap undo EXIT
trap 'exit 130' INT TERM

old_hash=$(hash_of "$(./scripts/packaged_etcd.sh amd64)")
sed -i "s/^\(etcd-bin-vendored-linux-[a-z0-9]*\) = .*/\1 = \"=$version\"/" Cargo.toml
cargo fetch --quiet || fail "cannot get the packages of etcd $version, see above: nothing was changed"

declare -A etcd=() tarball=()
for arch in amd64 arm64; do
    program=$work/etcd-$arch
    install -m 0755 "$(./scripts/packaged_etcd.sh $arch)" "$program"
    case $arch in amd64) machine=62 ;; arm64) machine=183 ;; esac
    [ "$(od -An -tu2 -j18 -N2 "$program" | tr -d ' ')" = "$machine" ] || fail "the package's etcd is not for $arch"
    if [ "$(uname -m)" = x86_64 ] && [ $arch = amd64 ]; then
        said=$("$program" --version)
        [[ $said == "etcd Version: $version"$'\n'* ]] || fail "the package's etcd prints ${said%%$'\n'*}"
    fi
    etcd[$arch]=$(hash_of "$program")
    tarball[$arch]=
    [ -z "$sums" ] || tarball[$arch]=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]etcd-v$version-linux-$arch\.tar\.gz$/\1/p" "$sums")
done

awk -v version="$version" -v old="$old" \
    -v etcd_amd64="${etcd[amd64]}" -v etcd_arm64="${etcd[arm64]}" \
    -v tarball_amd64="${tarball[amd64]}" -v tarball_arm64="${tarball[arm64]}" '
    BEGIN {
        etcd["amd64"] = etcd_amd64; etcd["arm64"] = etcd_arm64
        tarball["amd64"] = tarball_amd64; tarball["arm64"] = tarball_arm64
        gsub(/\./, "\\.", old)
    }
    /^  sha256: / || /^  # No sha256 / { next }
    /^  arch: / { arch = $2 }
    /^  version: / { $0 = "  version: " version }
    /^    sha256: / { $0 = "    sha256: " etcd[arch] }
    /^  uri: / {
        gsub("v" old, "v" version)
        print
        if (tarball[arch]) print "  sha256: " tarball[arch]
        else print "  # No sha256 of the " arch " tarball is recorded here. To build from that tarball, set ETCD_RELEASE_SHA256 to its hash."
        next
    }
    { print }' "$work/before/manifest.yml" >manifest.yml

# Updates the entry of the unreleased version that names etcd, or adds one.
awk -v version="$version" -v old="$old" '
    BEGIN { said = "etcd " old; gsub(/\./, "\\.", said) }
    /^## / { unreleased = /\[Unreleased\]/ }
    unreleased && $0 ~ said "( |\\.|$)" { sub(said, "etcd " version); done = 1 }
    { line[NR] = $0; if (unreleased && /^## /) heading = NR }
    END {
        for (n = 1; n <= NR; n++) {
            print line[n]
            if (n == heading && !done) print "\n### Changed\n\n- etcd " version " instead of " old "."
        }
    }' "$work/before/CHANGELOG.md" >CHANGELOG.md

sed -i -e "s/\b\(v\?\)${old//./\\.}\b/\1$version/g" -e "s/$old_hash/${etcd[amd64]}/g" "${pages[@]}"

cargo metadata --locked --format-version 1 >/dev/null
trap - EXIT
rm -rf "$work"
echo "etcd $version instead of $old; now: ./scripts/test.sh"
for arch in amd64 arm64; do
    echo "$arch: etcd ${etcd[$arch]}, tarball ${tarball[$arch]:-not on record}"
done
