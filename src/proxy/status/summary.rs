//! What to see first: whether it works, and if not, why.

use super::report::{Calls, Member, Report, Summary};

/// Clients that have more than this share of all places are a problem.
const CROWDED: (usize, usize) = (9, 10);

/// A failed call is a problem for this long, in seconds.
const LATELY: f64 = 60.0;

impl Report {
    /// The same, with its summary.
    pub(in crate::proxy) fn summed_up(self) -> Self {
        Self { summary: summary(&self), ..self }
    }
}

fn summary(report: &Report) -> Summary {
    let problems = problems(report);
    let (level, headline) = match (report.health.ok, problems.len()) {
        (false, _) => ("bad", "The cluster does not answer".to_owned()),
        (true, 0) => ("good", "Healthy".to_owned()),
        (true, 1) => ("warn", "Healthy, with a problem".to_owned()),
        (true, count) => ("warn", format!("Healthy, with {count} problems")),
    };
    let why = if problems.is_empty() { vec![calm(report)] } else { problems };
    Summary { level: level.to_owned(), headline, why: why.into_iter().filter(|why| !why.is_empty()).collect() }
}

/// What there is to say when nothing is wrong.
fn calm(report: &Report) -> String {
    let members = report.members.iter().filter(|member| !member.retired).count();
    let serves = report.members.iter().find(|member| member.serves);
    let serves = serves.map(|member| format!("; calls go to {}", member.address)).unwrap_or_default();
    match members {
        0 => String::new(),
        1 => format!("The member is up{serves}"),
        count => format!("All {count} members are up{serves}"),
    }
}

fn problems(report: &Report) -> Vec<String> {
    let mut problems: Vec<String> = report.members.iter().filter_map(of_member).collect();
    problems.extend(report.unresolved.iter().map(|name| format!("{}: {}", name.name, name.error)));
    if !report.health.ok && problems.is_empty() {
        problems.push(report.health.reason.clone());
    }
    problems.extend(
        report
            .members
            .iter()
            .flat_map(|member| member.alarms.iter().map(|alarm| format!("{}: alarm {alarm}", member.address))),
    );
    for certificate in report.certificates.iter().filter(|certificate| certificate.level != "good") {
        let when = match certificate.days_left {
            ..0 => "has expired".to_owned(),
            0 => "expires today".to_owned(),
            1 => "expires tomorrow".to_owned(),
            days => format!("expires in {days} days"),
        };
        problems.push(format!("The certificate of {} {when}", certificate.what));
    }
    if let Some(clients) = &report.clients
        && let Some(limit) = clients.limit
        && clients.connected * CROWDED.1 > limit * CROWDED.0
    {
        problems.push(format!("{} clients are connected, of {limit} at most", clients.connected));
    }
    problems.extend(report.calls.as_ref().and_then(|calls| failed_lately(calls, report.now)));
    problems
}

fn of_member(member: &Member) -> Option<String> {
    let Member { address, error, .. } = member;
    let error = error.as_deref().unwrap_or("no reason is known");
    match member.state.as_str() {
        "down" => Some(format!("{address} is down: {error}")),
        "failing" => Some(format!("{address}: {error}")),
        "unknown" => Some(format!("{address} has not answered yet")),
        _ => None,
    }
}

fn failed_lately(calls: &Calls, now: f64) -> Option<String> {
    let lately = calls.history.iter().filter(|point| now - point.at < LATELY);
    // Of a second each.
    let (failed, all) = lately.fold((0.0, 0.0), |(failed, all), point| (failed + point.failed, all + point.calls));
    (failed >= 1.0).then(|| format!("In the last minute, {failed:.0} of {all:.0} calls failed"))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::facts::certificate;
    use super::super::report::{Clients, Health, Point, Unresolved};
    use super::*;
    use crate::os::clock::since_epoch;

    fn member(address: &str, state: &str, error: Option<&str>) -> Member {
        let (address, state, error) = (address.to_owned(), state.to_owned(), error.map(ToOwned::to_owned));
        Member { address, state, error, ..Member::default() }
    }

    fn healthy() -> Report {
        let members = vec![Member { serves: true, ..member("a", "up", None) }, member("b", "up", None)];
        Report { health: Health { ok: true, reason: String::new() }, members, ..Report::default() }
    }

    #[test]
    fn all_is_well() {
        let Summary { level, headline, why } = summary(&healthy());
        assert_eq!((level.as_str(), headline.as_str()), ("good", "Healthy"));
        assert_eq!(why, ["All 2 members are up; calls go to a"]);
    }

    #[test]
    fn each_problem_is_named() {
        let mut report = healthy();
        report.members[1] = member("b", "down", Some("refused"));
        assert_eq!(summary(&report).headline, "Healthy, with a problem");
        report.members[0].alarms = vec!["NOSPACE".to_owned()];
        report.unresolved = vec![Unresolved { name: "c".to_owned(), error: "no such name".to_owned() }];
        let today = i64::try_from(since_epoch(SystemTime::now()).as_secs()).unwrap();
        let certificate = |days: i64| certificate(&format!("x{days}"), None, today + days * 86400 + 60);
        report.certificates = [-1, 0, 1, 13, 14].map(certificate).into();
        report.clients = Some(Clients { connected: 91, limit: Some(100) });
        report.now = 1000.0;
        let point = |at| Point { at, calls: 10.0, failed: 2.0, ..Point::default() };
        report.calls = Some(Calls { history: vec![point(900.0), point(998.0), point(999.0)], ..Calls::default() });
        let Summary { level, headline, why } = summary(&report);
        assert_eq!((level.as_str(), headline.as_str()), ("warn", "Healthy, with 9 problems"));
        assert_eq!(
            why,
            [
                "b is down: refused",
                "c: no such name",
                "a: alarm NOSPACE",
                "The certificate of x-1 has expired",
                "The certificate of x0 expires today",
                "The certificate of x1 expires tomorrow",
                "The certificate of x13 expires in 13 days",
                "91 clients are connected, of 100 at most",
                "In the last minute, 4 of 20 calls failed",
            ]
        );
    }

    #[test]
    fn a_cluster_that_does_not_answer_comes_first() {
        let health = Health { ok: false, reason: "why".to_owned() };
        let report = Report { health, ..Report::default() };
        let Summary { level, headline, why } = summary(&report);
        assert_eq!((level.as_str(), headline.as_str()), ("bad", "The cluster does not answer"));
        assert_eq!(why, ["why"]);
        let members = vec![member("a", "unknown", None)];
        assert_eq!(summary(&Report { members, ..report }).why, ["a has not answered yet"]);
    }
}
