//! The state of the proxy, for people: as a web page, as JSON and in `etcdproxy top`.
//!
//! - [`report`]: what there is to show; [`summary`]: what to see first
//! - [`facts`]: what is known from the start
//! - [`history`]: the last two minutes, second by second
//! - [`page`]: the web page, and who may see it

mod facts;
mod history;
mod page;
mod report;
mod summary;

pub(super) use facts::{Facts, certificate};
pub(super) use history::{Counts, History, INTERVAL as SAMPLE_INTERVAL};
pub(super) use page::{Host, PAGE, headers, is_trusted};
pub(crate) use report::{Calls, Certificate, Clients, Etcd, Leases, Line, Member, Method, Report, Unresolved, Watches};
