//! etcdctl's own variable.

use super::addr::ListenAddr;
use crate::os::env::Env;

/// The variable with the addresses that etcdctl connects to.
pub(crate) const ETCDCTL_ENDPOINTS: &str = "ETCDCTL_ENDPOINTS";

/// The value of [`ETCDCTL_ENDPOINTS`] for a command that is to use the proxy at `addr`; `None` where etcdctl's default is
/// right. etcdctl refuses to have both the variable and `--endpoints`, so it is set only where it is needed.
pub(crate) fn etcdctl_endpoints(addr: &ListenAddr, env: &Env) -> Option<String> {
    let addr = addr.to_string();
    let is_default = ["127.0.0.1:2379", "localhost:2379"].contains(&addr.as_str());
    // The variable of the environment may name another cluster.
    (!is_default || env.get(ETCDCTL_ENDPOINTS).is_some()).then_some(addr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_is_set_only_where_etcdctls_default_is_wrong() {
        for (addr, own, expected) in [
            ("127.0.0.1:2379", "", None),
            ("localhost:2379", "", None),
            ("127.0.0.1:2379", "10.0.0.1:2379", Some("127.0.0.1:2379")),
            ("127.0.0.1:2380", "", Some("127.0.0.1:2380")),
        ] {
            let env = Env::from([(ETCDCTL_ENDPOINTS, own)]);
            assert_eq!(etcdctl_endpoints(&ListenAddr::parse(addr).unwrap(), &env).as_deref(), expected, "{addr}");
        }
    }
}
