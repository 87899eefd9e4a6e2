# The index of scripts/: `just` prints it (https://just.systems). Without just, run the scripts themselves.

set positional-arguments

_index:
    @just --list --unsorted

# Build, then show the main job: members die while a client works through the proxy
[group('start here')]
demo:
    ./scripts/demo.sh

# Run everything that a change must pass; continuous integration runs this
[group('start here')]
test *ARGS:
    ./scripts/test.sh "$@"

# Stage and launch the fixtures on a small Cloud Foundry; with words: only cases whose names contain one
[group('system tests (as root)')]
integration *WORDS:
    ./scripts/integration.sh "$@"

# Install the service on a Debian with systemd, in a container (needs ETCDPROXY_TEST_THREE); words as above
[group('system tests (as root)')]
service *WORDS:
    ./scripts/service.sh "$@"

# Measure sizes, times and throughput, write docs/benchmarks.md; `bench throughput`: only that part
[group('measure')]
bench *PART:
    ./scripts/bench.sh "$@"

# Measure failover, write docs/reliability.md (as root); with words: only rows whose names contain one
[group('measure')]
chaos *WORDS:
    ./scripts/chaos.sh "$@"

# Open the status page in a browser (Chromium), kill members behind it, write pictures: `page DIRECTORY`
[group('system tests (as root)')]
page *ARGS:
    ./scripts/page.sh "$@"

# Attack our own program, write the last part of docs/reliability.md (as root); words as above
[group('measure')]
attack *WORDS:
    ./scripts/attack.sh "$@"

# Drive random histories of watches through mode native, write their part of docs/reliability.md: `check 60` minutes
[group('measure')]
check *MINUTES:
    ./scripts/check.sh "$@"

# Run the tests of other people's client libraries, write docs/clients.md (as root); with words: only these suites
[group('measure')]
suites *ARGS:
    ./scripts/suites.sh "$@"

# Measure failover with other people's client libraries, write its part of docs/reliability.md; with words: only these libraries
[group('measure')]
failover *ARGS:
    ./scripts/failover.sh "$@"

# Draw the tables of docs/benchmarks.md and docs/reliability.md as pictures, in docs/images
[group('measure')]
plots:
    ./scripts/plots.sh

# Fuzz the HTTP/2 of http2/, 5 minutes for each target (needs a nightly Rust and cargo-fuzz)
[group('measure')]
fuzz *ARGS:
    ./scripts/fuzz.sh "$@"

# Build twice in different places and compare the results byte by byte
[group('measure')]
reproduce *ARGS:
    ./scripts/reproduce.sh "$@"

# Build the static release binary; on amd64, `build --arch arm64` builds for arm64
[group('build')]
build *ARGS:
    ./scripts/build.sh "$@"

# Build, and package the binary: as the offline buildpack, or with --format oci as a container image
[group('build')]
package *ARGS:
    ./scripts/package.sh "$@"

# Install the Debian packages that the scripts need: install-tools build test …
[group('build')]
install-tools *PURPOSES:
    ./scripts/install_tools.sh "$@"

# Check all crates with cargo-deny: licences, sources, known vulnerabilities
[group('maintain')]
deny:
    ./scripts/deny.sh

# Move to another etcd: bump-etcd 3.7.2, or bump-etcd newest
[group('maintain')]
bump-etcd *ARGS:
    ./scripts/bump_etcd.sh "$@"

# Check that upstream's tarball holds the same etcd as the Cargo package: official-tarball amd64
[group('release')]
official-tarball *ARGS:
    ./scripts/official_tarball.sh "$@"

# Write manual pages and completions into target/pages
[group('release')]
pages:
    ./scripts/pages.sh

# Make the documentation site from README.md and docs/, in target/site/book
[group('release')]
site:
    ./scripts/site.sh

# Build this machine's archive like a release, into target/distrib
[group('release')]
dist:
    ./scripts/dist.sh

# Make the buildpacks and images of a release from the archives in target/distrib
[group('release')]
packages:
    ./scripts/packages.sh

# Only other scripts, the tests and the workflows use these:
#   scripts/arm64_env.sh         prints the variables for a build for arm64
#   scripts/as_arm64.sh          runs a command that can start programs for arm64, with qemu
#   scripts/job.sh               makes a scratch directory and limits the time of commands; to be sourced
#   scripts/link_arm64.sh        the linker of a build for arm64
#   scripts/manifest_validators.txt  what scripts/validators.sh installs for manifests
#   scripts/packaged_etcd.sh     prints the path of the etcd in the Cargo package
#   scripts/promtool.sh          prints the path of Prometheus' promtool
#   scripts/release_env.sh       prints the variables for a build with dist
#   scripts/sbom_validators.txt  what scripts/validators.sh installs for bills of materials
#   scripts/three_binaries.sh    makes a release tarball with etcd, etcdctl and etcdutl
#   scripts/validate_manifest.py validates a manifest
#   scripts/validate_sbom.py     validates a bill of materials
#   scripts/validators.sh        installs the validators of bills of materials, or of manifests
