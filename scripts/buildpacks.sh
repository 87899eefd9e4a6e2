#!/bin/sh
# Makes the buildpack zips of a release from its archives in target/distrib: one for each architecture and one for both.
# The binary for this machine writes all of them. dist runs this script.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

out=target/buildpacks
rm -rf $out
mkdir -p $out
for machine in x86_64 aarch64; do
    tar -xzf "target/distrib/etcdproxy-$machine-unknown-linux-musl.tar.gz" -C "$work"
    # The tests require this as well. For arm64, it takes scripts/link_arm64.sh.
    readelf -h "$work/etcdproxy-$machine-unknown-linux-musl/etcdproxy" | grep -q 'Type: *DYN ' ||
        { echo "buildpacks.sh: the binary for $machine is not position-independent" >&2; exit 1; }
done
case $(uname -m) in
x86_64) this=amd64 there=arm64 other=aarch64 ;;
aarch64) this=arm64 there=amd64 other=x86_64 ;;
*) echo "buildpacks.sh: etcdproxy does not support $(uname -m)" >&2 && exit 1 ;;
esac
package() { # architecture, and further arguments
    arch=$1
    shift
    "$work/etcdproxy-$(uname -m)-unknown-linux-musl/etcdproxy" package \
        --arch "$arch" --output "$out/etcdproxy_buildpack-cached-$arch.zip" "$@"
}
"$work/etcdproxy-$(uname -m)-unknown-linux-musl/etcdproxy" verify >&2
package "$this"
package "$there" --other "$work/etcdproxy-$other-unknown-linux-musl/etcdproxy"
package both --other "$work/etcdproxy-$other-unknown-linux-musl/etcdproxy"
cd $out
sha256sum etcdproxy_*.zip | tee etcdproxy_buildpacks.sha256
