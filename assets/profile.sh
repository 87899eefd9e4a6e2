# Every process of the application sources this file, so it must be quiet, fast, and safe to source twice.
# etcdctl refuses to have both this variable and --endpoints, so set it only where etcdctl's default is wrong.
case "${ETCDCTL_ENDPOINTS-unset}:${ETCDPROXY_LISTEN_ADDR:-127.0.0.1:2379}" in
unset:127.0.0.1:2379 | unset:localhost:2379) ;;
unset:*) export ETCDCTL_ENDPOINTS="$ETCDPROXY_LISTEN_ADDR" ;;
esac
if [ -n "${ETCDPROXY_WAIT:-}" ]; then
    # $0 is the platform's launcher or, in an ssh session, its shell. $2 is the start command; if a session calls the
    # launcher, it is a bare shell. The proxy must not wait for itself. A task has no process type, and so no proxy.
    case "${0##*/}:${2:-}" in
    shell:* | *: | *:bash | *:/bin/bash | *:sh | *:/bin/sh) ;;
    *'/etcdproxy"'* | *'etcdproxy run'* | *'etcdproxy exec'* | *grpc-proxy* | *ETCDPROXY_WAIT=*) ;;
    *)
        case "${VCAP_APPLICATION:-}" in
        *'"process_type"'*)
            # The proxy's command can be a script, and the platform does not tell a process what it is. So read the files
            # that the command names.
            (
                set -f
                starts_proxy="^[^#]*(etcdproxy[\"']? +(run|exec)|grpc-proxy)"
                for word in $(printf '%s' "$2" | tr "\"'();&|" ' '); do
                    if [ -f "$word" ] && head -c 65536 "$word" | grep -Eqa "$starts_proxy"; then
                        exit
                    fi
                done
                "$DEPS_DIR/@IDX@/bin/etcdproxy" wait --timeout "$ETCDPROXY_WAIT"
            ) || true
            ;;
        esac
        ;;
    esac
fi
