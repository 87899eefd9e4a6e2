//! Names to addresses, and domains to members, as Go's resolver finds them.
//!
//! The C library of a static program asks for all kinds of addresses at once and fails if one question fails. Many DNS
//! servers answer the question for IPv6 addresses with an error.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig, ServerOrderingStrategy};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, Resolver as Hickory, TokioResolver};
use nix::net::if_::if_nametoindex;
use tokio::time::timeout;

use super::error::DialError;
use crate::settings::{Endpoint, Scheme};

/// How long one DNS server may take for an answer, unless `resolv.conf` allows less.
const SERVER_TIMEOUT: Duration = Duration::from_secs(1);

/// When the addresses of one kind are known, those of the other kind get this much more time.
const OTHER_KIND: Duration = Duration::from_millis(200);

/// An answer counts as fresh for at least and at most this long, whatever its TTL.
const MIN_TTL: Duration = Duration::from_secs(2);
const MAX_TTL: Duration = Duration::from_secs(30);

/// The services under which etcd's members are found by SRV records
/// (<https://etcd.io/docs/v3.6/op-guide/clustering/#dns-discovery>).
const SECURE_SERVICE: &str = "_etcd-client-ssl._tcp";
const PLAIN_SERVICE: &str = "_etcd-client._tcp";

/// One address of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub endpoint: Endpoint,
    /// `None` for a Unix socket.
    pub addr: Option<SocketAddr>,
}

impl Target {
    /// The endpoint itself, if it needs no look-up.
    pub(crate) fn of(endpoint: &Endpoint) -> Option<Self> {
        let addr = match endpoint.host_port() {
            None => None,
            Some((host, port)) => Some(literal(host, port)?),
        };
        Some(Self { endpoint: endpoint.clone(), addr })
    }

    /// The name that calls give this member.
    pub(crate) fn authority(&self) -> String {
        match self.endpoint.scheme {
            Scheme::Unix => "localhost".to_owned(),
            _ => self.endpoint.address(),
        }
    }

    /// Whether both are addresses of one endpoint, one of IPv4 and one of IPv6: they can be the same member.
    pub(crate) fn is_other_kind_of(&self, other: &Self) -> bool {
        let is_v4 = |target: &Self| target.addr.map(|addr| addr.is_ipv4());
        self.endpoint == other.endpoint && is_v4(self) != is_v4(other)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)?;
        let is_name = self.endpoint.host_port().is_some_and(|(host, port)| literal(host, port).is_none());
        match self.addr {
            Some(addr) if is_name => write!(f, " ({})", addr.ip()),
            _ => Ok(()),
        }
    }
}

/// What a look-up found, and how long that counts.
#[derive(Debug)]
pub(crate) struct Found<T> {
    pub found: Vec<T>,
    pub until: Instant,
}

/// Resolves names with the system's `hosts` and `resolv.conf`, which it reads again when they change.
#[derive(Default)]
pub(crate) struct Resolver {
    current: Mutex<Option<(Stamp, Configured)>>,
}

/// What the system's files say.
#[derive(Clone)]
struct Configured {
    dns: TokioResolver,
    hosts: Arc<Hosts>,
}

/// Modification time, size and inode of each file.
type Stamp = [Option<(i64, i64, u64, u64)>; 2];

impl Resolver {
    /// All addresses of an endpoint, at least one.
    ///
    /// # Errors
    /// [`DialError::Unresolved`]
    pub(crate) async fn targets(&self, endpoint: &Endpoint) -> Result<Found<Target>, DialError> {
        if let Some(target) = Target::of(endpoint) {
            return Ok(Found { found: vec![target], until: Instant::now() + MAX_TTL });
        }
        let Some((host, port)) = endpoint.host_port() else { return Err(DialError::Refused) };
        let Found { found, until } = self.addresses(host).await?;
        let target = |ip| Target { endpoint: endpoint.clone(), addr: Some(SocketAddr::new(ip, port)) };
        Ok(Found { found: found.into_iter().map(target).collect(), until })
    }

    /// The members that the SRV records of a domain name, at least one: those that speak TLS if there are any.
    ///
    /// # Errors
    /// [`DialError::Unresolved`]; also when only members without TLS are found and `needs_tls`.
    pub(crate) async fn members(&self, domain: &str, needs_tls: bool) -> Result<Found<Endpoint>, DialError> {
        let resolver = self.current()?.dns;
        let ask = async |service: &str| {
            let name = name(&format!("{service}.{domain}"))?;
            resolver.lookup(name, RecordType::SRV).await.map_err(|err| Failure::of(&err))
        };
        let (secure, plain) = tokio::join!(ask(SECURE_SERVICE), ask(PLAIN_SERVICE));
        let (scheme, lookup) = match (secure, plain) {
            (Ok(secure), _) => (Scheme::Https, secure),
            // A DNS server that fails must not make us speak plain text.
            (Err(Failure { is_definite: true, .. }), Ok(plain)) if !needs_tls => (Scheme::Http, plain),
            (Err(secure), _) => {
                let services =
                    if needs_tls { SECURE_SERVICE.to_owned() } else { format!("{SECURE_SERVICE} or {PLAIN_SERVICE}") };
                return Err(DialError::Unresolved(format!("{}, looking for SRV records of {services}", secure.why)));
            }
        };
        let records = lookup.answers().iter().filter_map(|record| match &record.data {
            RData::SRV(srv) => Endpoint::found(scheme, &srv.target.to_ascii(), srv.port),
            _ => None,
        });
        let mut found: Vec<Endpoint> = Vec::new();
        for endpoint in records {
            if !found.contains(&endpoint) {
                found.push(endpoint);
            }
        }
        if found.is_empty() {
            return Err(DialError::Unresolved("its SRV records name no host".to_owned()));
        }
        Ok(Found { found, until: until(&lookup) })
    }

    /// All addresses of a host, at least one.
    ///
    /// # Errors
    /// [`DialError::Unresolved`]
    pub(super) async fn addresses(&self, host: &str) -> Result<Found<IpAddr>, DialError> {
        // RFC 6761: this name is not for DNS.
        if host.trim_end_matches('.').eq_ignore_ascii_case("localhost") {
            let found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(Found { found, until: Instant::now() + MAX_TTL });
        }
        let Configured { dns: resolver, hosts } = self.current()?;
        let name = name(host)?;
        // The resolver itself looks there for the first name of the search list only.
        let found = in_hosts(&hosts, &name);
        if !found.is_empty() {
            return Ok(Found { found, until: Instant::now() + MAX_TTL });
        }
        let ask = async |kind| {
            let lookup = resolver.lookup(name.clone(), kind).await.map_err(|err| Failure::of(&err))?;
            let found: Vec<_> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
            if found.is_empty() { Err(Failure::no_address()) } else { Ok(Found { found, until: until(&lookup) }) }
        };
        let (v4, v6) = (ask(RecordType::A), ask(RecordType::AAAA));
        tokio::pin!(v4, v6);
        let (v4, v6) = tokio::select! {
            v4 = &mut v4 => {
                let v6 = if v4.is_ok() { timeout(OTHER_KIND, v6).await.ok() } else { Some(v6.await) };
                (Some(v4), v6)
            }
            v6 = &mut v6 => {
                let v4 = if v6.is_ok() { timeout(OTHER_KIND, v4).await.ok() } else { Some(v4.await) };
                (v4, Some(v6))
            }
        };
        match (v4, v6) {
            (Some(Ok(mut all)), Some(Ok(v6))) => {
                all.found.extend(v6.found);
                all.until = all.until.min(v6.until);
                Ok(all)
            }
            (Some(Ok(found)), _) | (_, Some(Ok(found))) => Ok(found),
            (Some(Err(why)), _) | (_, Some(Err(why))) => Err(DialError::Unresolved(why.why)),
            (None, None) => Err(DialError::Unresolved(Failure::no_address().why)),
        }
    }

    fn current(&self) -> Result<Configured, DialError> {
        // The resolver would panic.
        if SystemTime::now() < UNIX_EPOCH {
            return Err(DialError::Unresolved("this host's clock is before 1970: set it".to_owned()));
        }
        let stamp = ["/etc/resolv.conf", "/etc/hosts"].map(|path| {
            let meta = Path::new(path).metadata().ok()?;
            Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
        });
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((of, configured)) if *of == stamp => Ok(configured.clone()),
            _ => {
                let dns = read_configuration().map_err(|err| DialError::Unresolved(words(&err)))?;
                let configured = Configured { dns, hosts: Arc::new(Hosts::from_system().unwrap_or_default()) };
                *current = Some((stamp, configured.clone()));
                Ok(configured)
            }
        }
    }
}

/// The addresses that the file of hosts has for a name.
fn in_hosts(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    let mut name = name.clone();
    name.set_fqdn(true);
    let look_up = |kind| hosts.lookup_static_host(&Query::query(name.clone(), kind));
    let answers = [RecordType::A, RecordType::AAAA].into_iter().filter_map(look_up);
    answers
        .flat_map(|found| found.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>())
        .collect()
}

/// Without a `resolv.conf`, a DNS server on this host is asked, as resolv.conf(5) says.
fn read_configuration() -> Result<TokioResolver, NetError> {
    let mut builder = Hickory::builder_tokio().unwrap_or_else(|_| {
        let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
        Hickory::builder_with_config(config, TokioRuntimeProvider::default())
    });
    let options = builder.options_mut();
    // One server after the other, as written: the second may not know the names of this network.
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    options.timeout = options.timeout.min(SERVER_TIMEOUT);
    options.use_hosts_file = ResolveHosts::Never;
    options.positive_min_ttl = Some(MIN_TTL);
    options.positive_max_ttl = Some(MAX_TTL);
    options.negative_max_ttl = Some(MIN_TTL);
    builder.build()
}

fn until(lookup: &Lookup) -> Instant {
    let now = Instant::now();
    lookup.valid_until().clamp(now + MIN_TTL, now + MAX_TTL)
}

fn name(text: &str) -> Result<Name, DialError> {
    Name::from_ascii(text).map_err(|_| DialError::Unresolved("it is not a name that DNS knows".to_owned()))
}

/// An IP address as text; an IPv6 address may have a zone, as in `fe80::1%eth0`.
fn literal(host: &str, port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some((ip, port).into());
    }
    let (ip, zone) = host.split_once('%')?;
    let zone = zone.parse().ok().or_else(|| if_nametoindex(zone).ok())?;
    Some(SocketAddrV6::new(ip.parse().ok()?, port, 0, zone).into())
}

/// Why a look-up failed.
struct Failure {
    why: String,
    /// DNS says that there is nothing, rather than that it cannot tell.
    is_definite: bool,
}

impl Failure {
    fn of(err: &NetError) -> Self {
        Self { why: words(err), is_definite: matches!(err, NetError::Dns(DnsError::NoRecordsFound(_))) }
    }

    fn no_address() -> Self {
        Self { why: "it has no address".to_owned(), is_definite: true }
    }
}

impl From<DialError> for Failure {
    fn from(err: DialError) -> Self {
        Self { why: err.to_string(), is_definite: true }
    }
}

fn words(err: &NetError) -> String {
    match err {
        NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            "no such name".to_owned()
        }
        NetError::Dns(DnsError::NoRecordsFound(_)) => "it has no address".to_owned(),
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the DNS server answers {code:?}"),
        NetError::Timeout => "the DNS server does not answer".to_owned(),
        other => other.to_string(),
    }
}
