#!/bin/sh
# Makes the packages of a release from its archives in target/distrib: buildpacks and container images, for each architecture
# and for both. The binary for this machine writes all of them. dist runs this script.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

out=target/packages
rm -rf $out
mkdir -p $out
for machine in x86_64 aarch64; do
    tar -xzf "target/distrib/etcdproxy-$machine-unknown-linux-musl.tar.gz" -C "$work"
    # The tests require this as well. For arm64, it takes scripts/link_arm64.sh.
    readelf -h "$work/etcdproxy-$machine-unknown-linux-musl/etcdproxy" | grep -q 'Type: *DYN ' ||
        { echo "packages.sh: the binary for $machine is not position-independent" >&2; exit 1; }
done
case $(uname -m) in
x86_64) this=amd64 other=aarch64 ;;
aarch64) this=arm64 other=x86_64 ;;
*) echo "packages.sh: etcdproxy does not support $(uname -m)" >&2 && exit 1 ;;
esac
binary=$work/etcdproxy-$(uname -m)-unknown-linux-musl/etcdproxy
package() { # architecture, file name, and further arguments
    arch=$1 file=$2
    shift 2
    [ "$arch" = "$this" ] || set -- "$@" --other "$work/etcdproxy-$other-unknown-linux-musl/etcdproxy"
    "$binary" package --arch "$arch" --output "$out/$file" "$@"
}
"$binary" verify >&2
for arch in amd64 arm64 both; do
    package "$arch" "etcdproxy_buildpack-cached-$arch.zip"
    package "$arch" "etcdproxy-buildpack-$arch.tgz" --format tgz
    [ "$arch" = both ] || package "$arch" "etcdproxy-buildpack-$arch.cnb" --format cnb
    package "$arch" "etcdproxy-image-$arch.oci.tar" --format oci
    package "$arch" "etcdproxy-image-native-$arch.oci.tar" --format oci --without-etcd
done
cd $out
sha256sum etcdproxy* | tee packages.sha256
mv packages.sha256 etcdproxy_packages.sha256
