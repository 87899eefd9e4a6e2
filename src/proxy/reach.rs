//! Connects to the first of several members that can be reached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::members::{Member, Members};
use crate::net::{Connected, Deadline, Dialer, Protocol};

/// The time for one member: to connect, and to complete the TLS handshake.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(2);

/// After this time, the next member is tried as well; the first connection wins.
const NEXT_MEMBER: Duration = Duration::from_millis(500);

/// Connects to the first of `order` that can be reached. The next one is tried when an attempt fails or takes long.
/// Records which could not be reached.
pub(super) async fn first_of(
    order: Vec<Arc<Member>>,
    protocol: Protocol,
    members: &Members,
    dialer: &Arc<Dialer>,
) -> Option<(Arc<Member>, Connected)> {
    let mut order = order.into_iter();
    let mut attempts = JoinSet::new();
    loop {
        match order.next() {
            Some(member) => {
                let dialer = Arc::clone(dialer);
                attempts.spawn(async move {
                    let asked = Instant::now();
                    let connected = dialer.connect_as(&member.target, protocol, Deadline::after(MEMBER_TIMEOUT)).await;
                    (member, asked, connected)
                });
            }
            None if attempts.is_empty() => return None,
            None => {}
        }
        let wait = if order.len() == 0 { MEMBER_TIMEOUT * 2 } else { NEXT_MEMBER };
        let Ok(Some(Ok((member, asked, connected)))) = timeout(wait, attempts.join_next()).await else { continue };
        match connected {
            Ok(connected) => return Some((member, connected)),
            Err(err) => {
                member.counters.count_failure(&err);
                members.report_failed_connection(&member, asked, &err);
            }
        }
    }
}
