# Every process of the application sources this file, so it must be quiet, fast, and safe to source twice.
export ETCDCTL_ENDPOINTS="${ETCDCTL_ENDPOINTS:-${ETCDPROXY_LISTEN_ADDR:-127.0.0.1:2379}}"
if [ -n "${ETCDPROXY_WAIT:-}" ]; then
    # $0 is the platform's launcher or, in an ssh session, its shell. $2 is the start command; if a session calls the
    # launcher, it is a bare shell. The proxy must not wait for itself. A task has no process type, and so no proxy.
    case "${0##*/}:${2:-}" in
    shell:* | *: | *:bash | *:/bin/bash | *:sh | *:/bin/sh) ;;
    *'/etcdproxy"'* | *'etcdproxy run'* | *'etcdproxy exec'* | *grpc-proxy*) ;;
    *)
        case "${VCAP_APPLICATION:-}" in
        *'"process_type"'*) "$DEPS_DIR/@IDX@/bin/etcdproxy" wait --timeout "$ETCDPROXY_WAIT" || true ;;
        esac
        ;;
    esac
fi
