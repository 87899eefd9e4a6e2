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

/// The endpoints that are followed, by their text, and the task that follows each.
type Followed = HashMap<String, (Endpoint, JoinHandle<()>)>;

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
        // Those that are known already were found by SRV records.
        let known: Vec<_> = self.members.list().iter().map(|member| member.target.endpoint.clone()).collect();
        self.add(&mut followed, known.into_iter().chain(endpoints));
        let Some(domain) = domain else { return std::future::pending().await };
        loop {
            let found = self.look_up(&domain, self.resolver.members(&domain, needs_tls)).await;
            let mut until = Instant::now() + RETRY;
            if let Some(Found { found, until: fresh_until }) = found {
                self.add(&mut followed, found.iter().cloned());
                // Members without an address replace nobody.
                if self.members.list().iter().any(|member| found.contains(&member.target.endpoint)) {
                    self.keep(&mut followed, &found);
                    until = fresh_until;
                }
            }
            sleep_until(until.into()).await;
        }
    }

    /// Follows these endpoints too.
    fn add(self: &Arc<Self>, followed: &mut Followed, endpoints: impl Iterator<Item = Endpoint>) {
        for endpoint in endpoints {
            followed
                .entry(endpoint.to_string())
                .or_insert_with(|| (endpoint.clone(), tokio::spawn(Arc::clone(self).follow_endpoint(endpoint))));
        }
    }

    /// Follows no other endpoints than these any more.
    fn keep(&self, followed: &mut Followed, endpoints: &[Endpoint]) {
        followed.retain(|_, (endpoint, task)| {
            let stays = endpoints.contains(endpoint);
            if !stays {
                task.abort();
                self.members.replace(endpoint, &[]);
            }
            stays
        });
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
