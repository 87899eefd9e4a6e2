//! Checks the health of a member every second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::members::{Member, Members};
use crate::net::{Connection, Deadline, DialError, Dialer, GrpcConnection, Protocol, Step, Stream, etcd_health, get};

const INTERVAL: Duration = Duration::from_secs(1);
/// A member that does not answer for this long is down.
const TIMEOUT: Duration = Duration::from_millis(1500);
/// After this many pings, a member without `/health` is asked for it again.
const PINGS: u32 = 60;
/// A connection serves this many checks at most.
const CHECKS_PER_CONNECTION: u32 = 10;

/// Checks the member forever and reports the results to `members`.
pub(super) async fn run(members: Arc<Members>, member: Arc<Member>, dialer: Arc<Dialer>) {
    let mut check = HealthCheck { member, dialer, kept: None, age: 0, generation: 0, pings: 0 };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        check.dialer.refresh().await;
        check.drop_old_connection();
        let answer = check.ask(Deadline::after(TIMEOUT)).await;
        members.report(&check.member, asked, answer);
    }
}

struct HealthCheck {
    member: Arc<Member>,
    dialer: Arc<Dialer>,
    kept: Option<Kept>,
    /// How many checks the kept connection has served.
    age: u32,
    /// The generation of the certificates that the kept connection was made with.
    generation: u32,
    /// How many more checks are pings instead of `/health`.
    pings: u32,
}

/// The connection of the last check.
enum Kept {
    Http1(Box<dyn Stream>),
    Grpc(GrpcConnection<Box<dyn Stream>>),
}

enum Answer {
    Healthy,
    /// With the reason.
    Unhealthy(String),
    /// This port does not serve `/health`.
    NotOffered,
}

impl HealthCheck {
    /// An old connection must not keep working where new ones fail because certificates changed, on either side.
    fn drop_old_connection(&mut self) {
        let generation = self.dialer.generation();
        self.age += 1;
        if self.member.is_down() || self.age >= CHECKS_PER_CONNECTION || self.generation != generation {
            (self.kept, self.age) = (None, 0);
        }
        self.generation = generation;
    }

    async fn ask(&mut self, deadline: Deadline) -> Result<(), String> {
        if self.pings == 0 {
            match self.ask_health(deadline).await.map_err(|err| err.to_string())? {
                Answer::Healthy => return Ok(()),
                Answer::Unhealthy(why) => return Err(why),
                Answer::NotOffered => {
                    self.kept = None;
                    self.pings = PINGS;
                }
            }
        }
        self.pings -= 1;
        let pinged = self.ping(deadline).await;
        if pinged.is_err() {
            self.pings = 0;
        }
        if self.pings == 0 {
            self.kept = None;
        }
        pinged.map_err(|err| err.to_string())
    }

    async fn ask_health(&mut self, deadline: Deadline) -> Result<Answer, DialError> {
        // The member may have closed a kept connection meanwhile: that says nothing about its health.
        if let Some(Kept::Http1(mut stream)) = self.kept.take()
            && let Some(answer) = deadline.step(Step::Answer, get_health(&mut stream)).await?
        {
            self.kept = Some(Kept::Http1(stream));
            return Ok(answer);
        }
        let mut stream = self.dialer.connect(&self.member.endpoint, Protocol::Http1, deadline).await?;
        let answer = deadline.step(Step::Answer, get_health(&mut stream)).await?;
        let Some(answer) = answer else { return Ok(Answer::NotOffered) };
        self.kept = Some(Kept::Http1(stream));
        Ok(answer)
    }

    async fn ping(&mut self, deadline: Deadline) -> Result<(), DialError> {
        if let Some(Kept::Grpc(mut connection)) = self.kept.take()
            && deadline.step(Step::Answer, connection.ping()).await?.is_ok()
        {
            self.kept = Some(Kept::Grpc(connection));
            return Ok(());
        }
        let connection = self.dialer.connect_grpc(&self.member.endpoint, deadline).await?;
        self.kept = Some(Kept::Grpc(connection));
        Ok(())
    }
}

/// One request on a connection that stays open; `None` when the answer is not HTTP/1.1.
async fn get_health(stream: &mut Box<dyn Stream>) -> Option<Answer> {
    Some(match get(stream, "/health", Connection::KeepAlive).await.ok()? {
        (status @ (200 | 503), body) => {
            etcd_health::judge(status, &body).reason.map_or(Answer::Healthy, Answer::Unhealthy)
        }
        _ => Answer::NotOffered,
    })
}
