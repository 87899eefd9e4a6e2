# Sourced in every process of the application: quiet, fast, and the same when it is sourced twice.
export ETCDCTL_ENDPOINTS="${ETCDCTL_ENDPOINTS:-${ETCDPROXY_LISTEN_ADDR:-127.0.0.1:2379}}"
if [ -n "${ETCDPROXY_WAIT:-}" ]; then
    # $2 is the start command. An ssh session has none, a task has no process type, and the proxy must not wait for itself.
    case "${2:-}" in
    '' | *'/etcdproxy"'* | *'etcdproxy run'* | *'etcdproxy exec'* | *grpc-proxy*) ;;
    *)
        case "${VCAP_APPLICATION:-}" in
        *'"process_type"'*) "$DEPS_DIR/@IDX@/bin/etcdproxy" wait --timeout "$ETCDPROXY_WAIT" || true ;;
        esac
        ;;
    esac
fi
