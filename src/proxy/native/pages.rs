//! What the proxy answers itself, besides calls.

use std::sync::atomic::Ordering;

use super::front::Front;
use super::metrics::{self, Figures};
use super::report;
use super::stats::add;
use crate::proxy::admin;
use crate::proxy::status::Report;

impl admin::Subject for Front {
    fn health(&self) -> Result<String, String> {
        // With an alarm, reads work, so the application must not be ended for it.
        let alarm = |alarm: String| format!("alarm {alarm}");
        self.members.health().map(|()| self.members.alarms().into_iter().map(alarm).collect::<Vec<_>>().join(", "))
    }

    async fn metrics(&self) -> String {
        metrics::render(&Figures {
            clients: self.clients.load(Ordering::Relaxed),
            clients_limit: self.limit.clients,
            stats: &self.stats,
            members: &self.members,
            dialer: &self.relay.dialer,
        })
    }

    fn report(&self) -> Report {
        report::report(self)
    }

    fn hosts(&self) -> &[String] {
        &self.facts.hosts
    }

    fn count_evicted(&self, count: u64) {
        add(&self.stats.refused.silent, count);
    }
}
