#!/bin/sh
# Installs what a fresh Debian or Ubuntu with Rust lacks. On other systems it prints what to install. The arguments are
# the purposes: build (the default), arm64 (a build for arm64 on amd64), clients (the example client and the tests),
# test, bench, attack, chaos, page, plots, suites, integration, service.
set -eu
cd "$(dirname "$0")/.."

packages=
targets=$(uname -m)-unknown-linux-musl
need() { # program, Debian package
    command -v "$1" >/dev/null 2>&1 || packages="$packages $2"
}
need_library() { # Debian package, command that succeeds if the package is installed
    package=$1
    shift
    "$@" >/dev/null 2>&1 || packages="$packages $package"
}

for purpose in "${@:-build}"; do
    case $purpose in
    build)
        need cc gcc; need musl-gcc musl-tools
        need_library libc6-dev test -e /usr/include/stdio.h
        ;;
    arm64)
        need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
        need_library libc6-dev-arm64-cross test -e /usr/aarch64-linux-gnu/include/stdio.h
        targets="$targets aarch64-unknown-linux-musl"
        ;;
    clients)
        need protoc protobuf-compiler
        need_library libprotobuf-dev test -e /usr/include/google/protobuf/struct.proto
        ;;
    test)
        need shellcheck shellcheck; need groff groff-base; need setpriv util-linux; need unshare util-linux
        need readelf binutils; need qemu-aarch64-static qemu-user-static; need ip iproute2; need openssl openssl
        need skopeo skopeo; need podman podman; need umoci umoci; need bwrap bubblewrap
        need_library python3-pip python3 -m pip --version
        ;;
    bench) need openssl openssl; need_library python3-pip python3 -m pip --version ;;
    attack) need python3 python3; need ip iproute2; need unshare util-linux; need setpriv util-linux ;;
    chaos) need python3 python3; need ip iproute2; need unshare util-linux ;;
    page) need python3 python3; need chromium chromium; need chromedriver chromium-driver; need fc-list fontconfig ;;
    plots) need_library python3-matplotlib /usr/bin/python3 -c 'import matplotlib' ;;
    suites)
        need ip iproute2; need unshare util-linux; need pgrep procps; need git git; need npm npm; need rspec ruby-rspec
        need_library python3-pip python3 -m pip --version
        need_library python3-venv python3 -c 'import ensurepip, venv'
        need_library ruby-grpc /usr/bin/ruby -e "gem 'grpc'"
        ;;
    integration)
        need setpriv util-linux; need unshare util-linux; need ip iproute2; need rackup ruby-rack
        for library in grpc sinatra webrick; do need_library ruby-$library /usr/bin/ruby -e "gem '$library'"; done
        need_library python3-yaml /usr/bin/python3 -c 'import yaml'
        ;;
    service)
        need debootstrap debootstrap; need systemd-nspawn systemd-container; need dbus-daemon dbus; need ip iproute2
        need nsenter util-linux; need setpriv util-linux; need openssl openssl; need python3 python3
        ;;
    *) echo "install_tools.sh: invalid purpose \"$purpose\": expected build, arm64, clients, test, bench, attack, chaos, page, plots, suites, integration or service" >&2; exit 2 ;;
    esac
done

if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "install_tools.sh: please install these packages (names of Debian):$packages" >&2
        exit 1
    fi
    if [ "$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi
    echo "install_tools.sh: installing$packages" >&2
    $as_root apt-get update -qq >&2
    # shellcheck disable=SC2086 # words are wanted
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >&2
fi

if command -v rustup >/dev/null 2>&1; then
    # Also installs the toolchain of rust-toolchain.toml if it is missing.
    rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install >&2
    # shellcheck disable=SC2086 # words are wanted
    rustup target add $targets >&2
elif ! command -v cargo >/dev/null 2>&1; then
    echo "install_tools.sh: please install Rust with rustup" >&2
    exit 1
fi
