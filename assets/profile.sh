# Sourced in every process of the application: quiet, fast, and the same when it is sourced twice.
export ETCDCTL_ENDPOINTS="${ETCDCTL_ENDPOINTS:-${ETCDPROXY_LISTEN_ADDR:-127.0.0.1:2379}}"
if [ -n "${ETCDPROXY_WAIT:-}" ]; then
    # $0 is the platform's launcher or, in an ssh session, its shell; $2 is the start command, which is a bare shell where
    # a session calls the launcher. The proxy must not wait for itself; a task, which has no process type, has no proxy.
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
