//! The members: whether each can be used, and what it says about itself and the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::finding::Chapter;
use crate::api::status::Status;
use crate::net::{
    Certificate, Deadline, DialError, Dialer, LoginError, Protocol, Resolver, SOON, Step, Target, date, days_left,
};
use crate::os::clock::since_epoch;
use crate::settings::{Endpoint, Login, Settings};

/// How long a member may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A clock that differs by more makes certificates invalid too early or too late, and logs hard to compare. HTTP's dates
/// have whole seconds.
const CLOCKS: Duration = Duration::from_secs(5);

/// One address of an endpoint, and what it says.
struct Examined {
    target: Target,
    certificate: Option<Certificate>,
    result: Result<(), DialError>,
    /// How long a read took, on an open connection.
    round_trip: Option<Duration>,
    status: Option<Status>,
    login: Option<Result<bool, LoginError>>,
    /// By how much its clock is ahead of ours, in seconds.
    ahead: Option<f64>,
}

/// Examines the members that the settings name, all at the same time.
pub(super) async fn examine(settings: &Settings, chapter: &mut Chapter) {
    let dialer = match Dialer::new(settings) {
        Ok(dialer) => Arc::new(dialer),
        Err(why) => {
            chapter.fault("certificates", why);
            return;
        }
    };
    let resolver = Arc::new(Resolver::default());
    let mut endpoints = settings.endpoints.clone();
    if let Some(domain) = &settings.discovery_srv {
        let look_up = resolver.members(domain, settings.tls.is_configured());
        match Deadline::after(TIMEOUT).step(Step::Resolve, look_up).await.flatten() {
            Ok(found) => endpoints = found.found,
            Err(err) => {
                chapter.fault(domain, err.to_string()).advise(advice(&err));
                return;
            }
        }
    }
    let look_ups: JoinSet<_> = endpoints
        .into_iter()
        .enumerate()
        .map(|(place, endpoint)| {
            let (resolver, dialer, login) = (Arc::clone(&resolver), Arc::clone(&dialer), settings.login.clone());
            async move { (place, examine_endpoint(endpoint, &resolver, &dialer, login).await) }
        })
        .collect();
    let mut found = look_ups.join_all().await;
    found.sort_by_key(|(place, _)| *place);
    let mut examined = Vec::new();
    for (_, members) in found {
        match members {
            Ok(members) => {
                for member in &members {
                    tell(member, chapter);
                }
                examined.extend(members);
            }
            Err((endpoint, err)) => chapter.fault(endpoint.to_string(), err.to_string()).advise(advice(&err)),
        }
    }
    tell_of_cluster(&examined, settings, chapter);
}

/// Examines each address of an endpoint.
///
/// # Errors
/// When it has no address: the endpoint, and why.
async fn examine_endpoint(
    endpoint: Endpoint,
    resolver: &Resolver,
    dialer: &Arc<Dialer>,
    login: Option<Login>,
) -> Result<Vec<Examined>, (Endpoint, DialError)> {
    let look_up = Deadline::after(TIMEOUT).step(Step::Resolve, resolver.targets(&endpoint)).await.flatten();
    let targets = look_up.map_err(|err| (endpoint, err))?.found;
    let questions: JoinSet<_> = targets
        .into_iter()
        .map(|target| {
            let (dialer, login) = (Arc::clone(dialer), login.clone());
            async move { ask(target, &dialer, login).await }
        })
        .collect();
    let mut members = questions.join_all().await;
    members.sort_by_key(|member| member.target.addr);
    Ok(members)
}

async fn ask(target: Target, dialer: &Dialer, login: Option<Login>) -> Examined {
    let (connection, result) = dialer.probe(&target, Deadline::after(TIMEOUT)).await;
    let mut examined =
        Examined { target, certificate: None, result, round_trip: None, status: None, login: None, ahead: None };
    let Some(mut connection) = connection else { return examined };
    let asked = Instant::now();
    if let Ok(Ok(())) = connection.probe(Deadline::after(TIMEOUT)).await {
        examined.round_trip = Some(asked.elapsed());
    }
    examined.status = connection.status(Deadline::after(TIMEOUT)).await;
    if let Some(login) = login {
        let token = connection.log_in(&login.username, &login.password, Deadline::after(TIMEOUT)).await;
        examined.login = Some(token.map(|token| token.is_some()));
    }
    if let Ok(connected) = dialer.connect_as(&examined.target, Protocol::Http1, Deadline::after(TIMEOUT)).await {
        examined.certificate = connected.certificate();
        let asked = SystemTime::now();
        // A port for gRPC alone gives no date.
        if let Ok(Ok(Some(date))) = timeout(TIMEOUT, date(&mut connected.into_stream())).await {
            let now = (since_epoch(asked) + since_epoch(SystemTime::now())) / 2;
            // The date is that of a second's beginning.
            examined.ahead = Some(since_epoch(date).as_secs_f64() + 0.5 - now.as_secs_f64());
        }
    }
    examined
}

fn tell(member: &Examined, chapter: &mut Chapter) {
    let about = member.target.to_string();
    if let Err(err) = &member.result {
        let finding = chapter.fault(&about, err.to_string());
        if !matches!(err.kind(), "tls" | "own_address") {
            finding.advise(advice(err));
        }
    } else {
        chapter.good(&about, serves(member));
    }
    if let Some(status) = &member.status {
        if status.is_learner {
            chapter
                .warn(&about, "it is a learner: it takes no writes and no linearizable reads")
                .advise("leave it out of the endpoints until it is promoted (etcdctl member promote)");
        }
        for alarm in status.alarms() {
            let finding = chapter.fault(&about, format!("alarm {alarm}"));
            match alarm.as_str() {
                "NOSPACE" => finding.advise(
                    "writes fail: compact and defragment the members, then disarm the alarm (etcdctl alarm disarm)",
                ),
                "CORRUPT" => finding.advise("its data differs from that of other members: replace the member"),
                _ => {}
            }
        }
    }
    if let Some(Certificate { end, names }) = &member.certificate {
        let days = days_left(*end);
        let text = format!("its certificate is for {}, and ends in {days} days", names.join(", "));
        if days < SOON {
            chapter.warn(&about, text).advise("give the member a new certificate; etcd reads it without a restart");
        } else {
            chapter.good(&about, text);
        }
    }
    if let Some(ahead) = member.ahead.filter(|ahead| ahead.abs() > CLOCKS.as_secs_f64()) {
        let (seconds, where_to) = (ahead.abs(), if ahead > 0.0 { "ahead of" } else { "behind" });
        chapter
            .warn(&about, format!("its clock is {seconds:.0} s {where_to} this host's"))
            .advise("synchronize both clocks (chrony, systemd-timesyncd): certificates depend on them");
    }
}

/// What a member that serves says about itself.
fn serves(member: &Examined) -> String {
    let mut parts = Vec::new();
    match &member.status {
        Some(status) => {
            parts.push(if status.is_leader() { "leads".to_owned() } else { "follows".to_owned() });
            parts.push(format!("etcd {}", status.version));
        }
        None => parts.push("serves; its status is not for this user".to_owned()),
    }
    if let Some(time) = member.round_trip {
        parts.push(format!("a read takes {:.1} ms", time.as_secs_f64() * 1e3));
    }
    parts.join(", ")
}

fn tell_of_cluster(examined: &[Examined], settings: &Settings, chapter: &mut Chapter) {
    let statuses: Vec<&Status> = examined.iter().filter_map(|member| member.status.as_ref()).collect();
    let clusters: BTreeSet<u64> = statuses.iter().map(|status| status.header.cluster_id).collect();
    if clusters.len() > 1 {
        chapter
            .fault("cluster", "these endpoints belong to different clusters")
            .advise("an application would see different data, call by call: name the members of one cluster only");
    }
    let versions: BTreeSet<&str> = statuses.iter().map(|status| status.version.as_str()).collect();
    if versions.len() > 1 {
        let versions = versions.into_iter().collect::<Vec<_>>().join(", ");
        chapter
            .warn("cluster", format!("its members have different versions: {versions}"))
            .advise("that is normal during an upgrade: finish it");
    }
    if !statuses.is_empty() && statuses.iter().all(|status| status.leader == 0) {
        chapter
            .fault("cluster", "no member knows a leader")
            .advise("more than half of the members must run and reach each other");
    } else if !statuses.is_empty() && !statuses.iter().any(|status| status.is_leader()) {
        chapter
            .warn("cluster", "none of these endpoints leads")
            .advise("name all members, so that writes need no detour");
    }
    let Some(login) = &settings.login else { return };
    let user = format!("user {:?}", login.username);
    match examined.iter().find_map(|member| member.login.as_ref()) {
        Some(Ok(true)) => chapter.good(user, "can log in"),
        Some(Ok(false)) => {
            chapter
                .warn(user, "the cluster asks for no login")
                .advise("etcdctl auth enable, or leave the user name out");
        }
        Some(Err(LoginError::Refused)) => {
            chapter
                .fault(user, "the cluster refuses the user name or the password")
                .advise("compare both with the cluster's: etcdctl user list");
        }
        Some(Err(LoginError::Failed(why))) => {
            chapter.fault(user, format!("cannot log in: {why}"));
        }
        None => {}
    }
}

/// What to do about a member that cannot be used.
fn advice(err: &DialError) -> &'static str {
    match err.kind() {
        "dns" => "check the name, and this host's DNS: getent hosts NAME",
        "refused" => "start the member, or correct the port: it is in the member's --listen-client-urls",
        "timeout" => "a firewall may drop the packets, or the member hangs: try from a host beside it",
        "unreachable" => "check the address, and the routes from this host",
        "closed" => "the member's log may say why; a gateway in between may want another name or another certificate",
        "protocol" => "give the port for clients, usually 2379: not that for peers, and not that for metrics",
        "local" => "raise the limits of this process: open files (ulimit -n), memory",
        "ill" => "look at the members' logs: more than half of them must run and reach each other",
        _ => "",
    }
}
