//! What there is to show. `/status.json` is these values as they stand here.

use serde::{Deserialize, Serialize};

/// Times are seconds since 1970, durations are seconds. A newer or older proxy may leave something out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub version: String,
    pub etcd_version: String,
    pub mode: String,
    /// Why `auto` chose the mode, or what the mode cannot do.
    pub mode_reason: Option<String>,
    pub pid: u32,
    pub started: f64,
    /// The clock when this was written.
    pub now: f64,
    pub listen_addr: String,
    pub metrics_addr: Option<String>,
    pub summary: Summary,
    pub health: Health,
    pub clients: Option<Clients>,
    pub members: Vec<Member>,
    /// Names that do not resolve now.
    pub unresolved: Vec<Unresolved>,
    /// `None` in a mode that does not see calls.
    pub calls: Option<Calls>,
    pub watches: Option<Watches>,
    pub leases: Option<Leases>,
    /// etcd's own proxy, if this program supervises it.
    pub etcd: Option<Etcd>,
    pub certificates: Vec<Certificate>,
    pub settings: Vec<Setting>,
    /// What was wrong with the settings at the start.
    pub warnings: Vec<String>,
    /// The last lines, the oldest first.
    pub log: Vec<Line>,
}

/// What to see first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    /// `good`, `warn` (it works, but something is wrong) or `bad`.
    pub level: String,
    pub headline: String,
    /// One sentence each.
    pub why: Vec<String>,
}

/// As in `/health`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    pub ok: bool,
    /// Why not, or what is worth knowing even so.
    pub reason: String,
}

/// Connected clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Clients {
    pub connected: usize,
    /// `None`: only the system limits them.
    pub limit: Option<usize>,
}

/// A member of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Member {
    pub address: String,
    /// `up`, `failing` (it is up, but new connections fail), `down` or `unknown`.
    pub state: String,
    /// When the state was last different.
    pub since: f64,
    /// What is wrong with it now.
    pub error: Option<String>,
    /// What was wrong with it last, and when that was last so.
    pub last_error: Option<String>,
    pub last_error_at: Option<f64>,
    pub leads: bool,
    /// Calls go to it.
    pub serves: bool,
    /// Its address is no longer one of its name.
    pub retired: bool,
    pub version: Option<String>,
    pub alarms: Vec<String>,
    /// How long a probe takes.
    pub round_trip: Option<f64>,
    pub connections: usize,
    /// How often its connections were cut in favour of other members.
    pub failovers: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Unresolved {
    pub name: String,
    pub error: String,
}

/// Calls of clients.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Calls {
    /// Since the start.
    pub total: u64,
    /// Of these, those that the cluster or the proxy could not carry out.
    pub failed: u64,
    /// Sent again to a member.
    pub repeated: u64,
    pub in_flight: u64,
    /// Second by second, the oldest first.
    pub history: Vec<Point>,
    /// The busiest first.
    pub methods: Vec<Method>,
}

/// One second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Point {
    pub at: f64,
    /// In a second.
    pub calls: f64,
    pub failed: f64,
    /// Half of the calls took this long at most, and 99 of 100; `None` when none ended.
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

/// The calls of one method since the start.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Method {
    pub name: String,
    pub total: u64,
    pub failed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Watches {
    /// Of clients, and those at the member that carry them.
    pub watchers: u64,
    pub watchers_at_member: u64,
    /// Since the start.
    pub events: u64,
    pub resumed: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Leases {
    /// Of clients that keep leases alive.
    pub streams: u64,
    /// Since the start.
    pub keepalives: u64,
}

/// etcd's own proxy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Etcd {
    /// `None` while it does not run.
    pub pid: Option<u32>,
    pub listening: bool,
    /// Starts since the first one.
    pub restarts: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Certificate {
    /// Whose it is.
    pub what: String,
    pub subject: String,
    pub expires: f64,
    /// Negative when it has expired.
    pub days_left: i64,
    /// `good`, `warn` (it is time to replace it) or `bad` (it has nearly expired), as in the alerts.
    pub level: String,
}

/// A setting in effect.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Setting {
    pub name: String,
    pub value: String,
    /// `flag`, `variable`, `binding` or `default`.
    pub source: String,
    /// The name that it has there.
    pub from: String,
}

/// A line of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Line {
    pub at: f64,
    /// `info`, `warn`, `error`, or `etcd` for a line of etcd's own.
    pub level: String,
    pub text: String,
}
