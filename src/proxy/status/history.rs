//! The last two minutes of calls, second by second.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::report::Point;
use crate::os::clock::unix;

/// How many points to keep.
const POINTS: usize = 120;

/// The time between two points.
pub(in crate::proxy) const INTERVAL: Duration = Duration::from_secs(1);

/// What was counted since the start.
#[derive(Debug, Clone, Default)]
pub(in crate::proxy) struct Counts {
    pub total: u64,
    pub failed: u64,
    /// How many calls took as long as each bucket says.
    pub durations: Vec<u64>,
}

/// The last points.
#[derive(Debug)]
pub(in crate::proxy) struct History {
    /// The upper bounds of the buckets, in seconds; a last bucket has no bound.
    bounds: &'static [f64],
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Counts,
    at: Instant,
    points: VecDeque<Point>,
}

impl History {
    pub(in crate::proxy) fn new(bounds: &'static [f64]) -> Self {
        let state = State { last: Counts::default(), at: Instant::now(), points: VecDeque::new() };
        Self { bounds, state: Mutex::new(state) }
    }

    /// Adds the point between the last counts and these.
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    pub(in crate::proxy) fn add(&self, counts: Counts, now: Instant) {
        let mut state = self.state();
        let seconds = now.duration_since(state.at).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let last = |bucket: usize| state.last.durations.get(bucket).copied().unwrap_or_default();
        let new = counts.durations.iter().enumerate().map(|(bucket, count)| count.saturating_sub(last(bucket)));
        let new: Vec<u64> = new.collect();
        let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds * 10.0).round() / 10.0;
        let point = Point {
            at: unix(SystemTime::now()),
            calls: rate(counts.total, state.last.total),
            failed: rate(counts.failed, state.last.failed),
            p50: self.quantile(&new, 0.5),
            p99: self.quantile(&new, 0.99),
        };
        if state.points.len() >= POINTS {
            state.points.pop_front();
        }
        state.points.push_back(point);
        (state.last, state.at) = (counts, now);
    }

    /// The oldest first.
    pub(in crate::proxy) fn points(&self) -> Vec<Point> {
        self.state().points.iter().cloned().collect()
    }

    /// As Prometheus' `histogram_quantile`: evenly spread within a bucket; the last bound for what is beyond it.
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    fn quantile(&self, buckets: &[u64], share: f64) -> Option<f64> {
        let total: u64 = buckets.iter().sum();
        let rank = total as f64 * share;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in buckets.iter().zip(self.bounds) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                let seconds: f64 = lower + (upper - lower) * (rank - below) / count;
                return Some((seconds * 1e6).round() / 1e6);
            }
            (below, lower) = (below + count, *upper);
        }
        (total > 0).then_some(lower)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 3] = [0.001, 0.01, 0.1];

    #[test]
    fn a_point_is_what_came_since_the_last_one() {
        let history = History::new(&BOUNDS);
        let begin = history.state().at;
        let counts = |total, failed, durations: [u64; 4]| Counts { total, failed, durations: durations.into() };
        history.add(counts(10, 1, [10, 0, 0, 0]), begin + INTERVAL);
        history.add(counts(110, 1, [10, 98, 2, 0]), begin + 3 * INTERVAL);
        history.add(counts(110, 1, [10, 98, 2, 0]), begin + 4 * INTERVAL);
        history.add(counts(111, 1, [10, 98, 2, 1]), begin + 5 * INTERVAL);
        let points = history.points();
        let shown: Vec<_> = points.iter().map(|point| (point.calls, point.failed, point.p50, point.p99)).collect();
        assert_eq!(
            shown,
            [
                (10.0, 1.0, Some(0.0005), Some(0.00099)),
                (50.0, 0.0, Some(0.005_592), Some(0.055)),
                (0.0, 0.0, None, None),
                (1.0, 0.0, Some(0.1), Some(0.1)),
            ]
        );
    }

    #[test]
    fn old_points_go() {
        let history = History::new(&BOUNDS);
        let begin = history.state().at;
        for n in 1..=200 {
            history.add(Counts::default(), begin + n * INTERVAL);
        }
        history.add(Counts { total: 9, ..Counts::default() }, begin);
        assert_eq!(history.points().len(), POINTS);
        assert!(history.points().iter().all(|point| point.calls == 0.0), "a clock that stands still makes no point");
    }
}
