#!/bin/bash
# Shows the main job with the embedded etcd: three members, the proxy, and a client that works on while members die.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

say "Building (the first time takes some minutes)"
./scripts/install_tools.sh build clients
etcdproxy=$(./scripts/build.sh)
cargo build --locked --quiet --example client
client=${CARGO_TARGET_DIR:-target}/debug/examples/client
ls -l "$etcdproxy"

work=$(mktemp -d)
declare -A pids=()
cleanup() {
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Each run has its own address of 127.0.0.0/8, so it can use the usual ports.
host=127.$((RANDOM % 200 + 20)).$((RANDOM % 256)).$((RANDOM % 254 + 1))
client_url() { echo "http://$host:$((20000 + $1))"; }
peer_url() { echo "http://$host:$((30000 + $1))"; }
listen=$host:2379
members=$(client_url 1),$(client_url 2),$(client_url 3)
export ETCDPROXY_UNPACK_DIR=$work/unpacked
ln -s "$etcdproxy" "$work/etcd"

start_member() { # number
    "$work/etcd" --name "m$1" --data-dir "$work/m$1" --log-level error \
        --listen-client-urls "$(client_url "$1")" --advertise-client-urls "$(client_url "$1")" \
        --listen-peer-urls "$(peer_url "$1")" --initial-advertise-peer-urls "$(peer_url "$1")" \
        --initial-cluster "m1=$(peer_url 1),m2=$(peer_url 2),m3=$(peer_url 3)" >>"$work/m$1.log" 2>&1 3>&- &
    pids[m$1]=$!
    disown $!
}

wait_writes() { # number of further acknowledged writes; the client prints the sum on each line
    local goal=$(($(writes) + $1))
    for _ in $(seq 200); do
        [ "$(writes)" -ge $goal ] && return
        sleep 0.1
    done
    echo "demo.sh: the client makes no progress; its output was:" >&2
    tail -n 3 "$work/client.out" >&2
    return 1
}
writes() { sed -n 's/^client: \([0-9]*\) writes.*/\1/p' "$work/client.out" | tail -n 1 | grep . || echo 0; }

say "Unpacking etcd and starting three members with a link named etcd"
"$etcdproxy" unpack "$work/unpacked/once"
for n in 1 2 3; do start_member $n; done

say "Starting the proxy on $listen: etcdproxy run --endpoints $members"
"$etcdproxy" run --endpoints "$members" --listen-addr "$listen" 2>"$work/proxy.log" &
pids[proxy]=$!
disown $!
"$etcdproxy" wait --listen-addr "$listen" --timeout 60s
"$etcdproxy" health --listen-addr "$listen"

say "A client writes, reads and watches through $listen only"
mkfifo "$work/until"
"$client" load "http://$listen" <"$work/until" >"$work/client.out" 2>&1 &
load=$!
pids[client]=$load
exec 3>"$work/until"
wait_writes 50

leader=$("$client" leader "$members")
follower=$((leader % 3 + 1))
say "Member m$leader leads. Killing the follower m$follower (kill -9)"
kill -9 "${pids[m$follower]}"
wait_writes 50
echo "the client went on: $(writes) writes"

say "Bringing m$follower back"
start_member $follower
for _ in $(seq 100); do
    "$etcdproxy" health --listen-addr "$host:$((20000 + follower))" >/dev/null 2>&1 && break
    sleep 0.1
done
"$etcdproxy" health --listen-addr "$host:$((20000 + follower))"

leader=$("$client" leader "$members")
say "Killing the leader m$leader (kill -9)"
kill -9 "${pids[m$leader]}"
wait_writes 50
echo "the client went on: $(writes) writes; member m$("$client" leader "$members") leads now"

say "Result"
exec 3>&-
if ! wait "$load"; then
    cat "$work/client.out"
    echo "DEMO FAILED"
    exit 1
fi
tail -n 4 "$work/client.out"
cleanup
echo "DEMO PASSED: a follower and the leader were killed, no acknowledged write is lost"
