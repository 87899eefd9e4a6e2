//! Follows the names of the cluster: the addresses of each endpoint, and the SRV records of a domain.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use super::health_check;
use super::members::{Member, Members};
use crate::net::{DialError, Dialer, Found, Resolver, Step, Target};
use crate::settings::Endpoint;

/// How long a look-up may take. Nobody waits for it: the addresses that were found before stay in use.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a look-up that failed.
const RETRY: Duration = Duration::from_secs(2);

/// What the look-ups need, and who learns of the results.
pub(super) struct Names {
    pub members: Arc<Members>,
    pub dialer: Arc<Dialer>,
    pub resolver: Resolver,
}

impl Names {
    /// Probes the members that are known, and follows the endpoints, or the SRV records of `domain`, for ever.
    pub(super) async fn follow(self: Arc<Self>, endpoints: Vec<Endpoint>, domain: Option<String>, needs_tls: bool) {
        for member in self.members.list() {
            self.probe(member);
        }
        let mut followed = HashMap::new();
        self.set(&mut followed, endpoints);
        let Some(domain) = domain else { return std::future::pending().await };
        loop {
            let found = self.look_up(&domain, self.resolver.members(&domain, needs_tls)).await;
            let until = found.as_ref().map_or_else(|| Instant::now() + RETRY, |found| found.until);
            if let Some(found) = found {
                self.set(&mut followed, found.found);
            }
            sleep_until(until.into()).await;
        }
    }

    /// Follows these endpoints, and no others.
    fn set(self: &Arc<Self>, followed: &mut HashMap<String, (Endpoint, JoinHandle<()>)>, endpoints: Vec<Endpoint>) {
        followed.retain(|_, (endpoint, task)| {
            let stays = endpoints.contains(endpoint);
            if !stays {
                task.abort();
                self.members.replace(endpoint, &[]);
            }
            stays
        });
        for endpoint in endpoints {
            followed
                .entry(endpoint.to_string())
                .or_insert_with(|| (endpoint.clone(), tokio::spawn(Arc::clone(self).follow_endpoint(endpoint))));
        }
    }

    async fn follow_endpoint(self: Arc<Self>, endpoint: Endpoint) {
        if let Some(target) = Target::of(&endpoint) {
            return self.replace(&endpoint, &[target]);
        }
        let name = endpoint.to_string();
        loop {
            let found = self.look_up(&name, self.resolver.targets(&endpoint)).await;
            let until = found.as_ref().map_or_else(|| Instant::now() + RETRY, |found| found.until);
            if let Some(found) = found {
                self.replace(&endpoint, &found.found);
            }
            sleep_until(until.into()).await;
        }
    }

    fn replace(&self, endpoint: &Endpoint, targets: &[Target]) {
        for member in self.members.replace(endpoint, targets) {
            self.probe(member);
        }
    }

    fn probe(&self, member: Arc<Member>) {
        tokio::spawn(health_check::run(Arc::clone(&self.members), member, Arc::clone(&self.dialer)));
    }

    async fn look_up<T>(
        &self,
        name: &str,
        look_up: impl Future<Output = Result<Found<T>, DialError>>,
    ) -> Option<Found<T>> {
        let found = timeout(TIMEOUT, look_up).await.unwrap_or(Err(DialError::TimedOut(Step::Resolve, TIMEOUT)));
        match found {
            Ok(found) => {
                self.members.resolved(name);
                Some(found)
            }
            Err(err) => {
                self.members.not_resolved(name, &err);
                None
            }
        }
    }
}
