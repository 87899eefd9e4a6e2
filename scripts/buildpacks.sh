#!/bin/sh
# Makes the buildpack zips of a release from its archives in target/distrib: dist runs it.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

out=target/buildpacks
rm -rf $out
mkdir -p $out
for machine in x86_64 aarch64; do
    name=etcdproxy-$machine-unknown-linux-musl
    tar -xzf "target/distrib/$name.tar.gz" -C "$work"
    run=
    if [ $machine != "$(uname -m)" ]; then
        run=qemu-$machine-static
        command -v "$run" >/dev/null 2>&1 || ./scripts/install_tools.sh emulator
    fi
    case $machine in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; esac
    $run "$work/$name/etcdproxy" package --output "$out/etcdproxy_buildpack-cached-$arch.zip"
done
cd $out
sha256sum etcdproxy_*.zip | tee etcdproxy_buildpacks.sha256
