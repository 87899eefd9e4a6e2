#!/bin/sh
# Prints the path of Prometheus' promtool: the one in the PATH, or the one of Debian's package, which is not installed, because
# that would start a server.
set -eu
cd "$(dirname "$0")/.."

if command -v promtool; then
    exit
fi
tool=target/prometheus/usr/bin/promtool
if [ ! -x "$tool" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "promtool.sh: please install promtool (https://prometheus.io/download/)" >&2
        exit 1
    fi
    rm -rf target/prometheus
    mkdir -p target/prometheus.new
    (
        cd target/prometheus.new
        apt-get download -qq prometheus >&2 || {
            if [ "$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi
            $as_root apt-get update -qq >&2
            apt-get download -qq prometheus >&2
        }
        dpkg-deb -x prometheus_*.deb .
        rm prometheus_*.deb usr/bin/prometheus
    )
    mv target/prometheus.new target/prometheus
fi
echo "$PWD/$tool"
