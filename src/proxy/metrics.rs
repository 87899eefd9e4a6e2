//! Pages of metrics for Prometheus.

use std::fmt;

use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::os::usage::Usage;
use crate::release::RELEASE;

/// Names and values of the labels of one sample. The encoder escapes the values.
pub(super) type Labels = Vec<(&'static str, String)>;

/// How often something took how long.
#[derive(Debug)]
pub(super) struct Durations {
    /// All together, in seconds.
    pub sum: f64,
    /// For each upper bound, in seconds, how many are above the one before and not above this one. The last bound is
    /// infinity.
    pub buckets: Vec<(f64, u64)>,
}

/// One page of metrics, made for each request: most of the numbers are counted elsewhere.
#[derive(Debug)]
pub(super) struct Sheet {
    own: Registry,
    /// Names without our prefix.
    process: Registry,
}

impl Sheet {
    /// What every page has. `mode` is the mode's name.
    pub(super) fn new(mode: &str) -> Self {
        let mut sheet = Self { own: Registry::with_prefix("etcdproxy"), process: Registry::with_prefix("process") };
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("etcd_version", RELEASE.version), ("mode", mode)];
        let labels = labels.map(|(name, value)| (name, value.to_owned())).to_vec();
        sheet.gauge("build_info", "Always 1. The labels say what runs", [(labels, 1)]);
        sheet
    }

    /// Adds numbers that can fall. `name` is without the prefix `etcdproxy_`, `help` without the full stop. Without
    /// samples, the page does not mention them.
    pub(super) fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        self.own.register(name, help, Samples::new(MetricType::Gauge, samples, Value::Integer));
    }

    /// The same for numbers that are no integers.
    pub(super) fn float_gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        self.own.register(name, help, Samples::new(MetricType::Gauge, samples, Value::Float));
    }

    /// Adds numbers that only grow. `name` is without the prefix `etcdproxy_` and the suffix `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, u64)>) {
        self.own.register(name, help, Samples::new(MetricType::Counter, samples, Value::Integer));
    }

    /// Adds durations. `name` is without the prefix `etcdproxy_`, and ends with `_seconds`.
    pub(super) fn histogram(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, Durations)>) {
        self.own.register(name, help, Samples::new(MetricType::Histogram, samples, Value::Durations));
    }

    /// Adds what this process uses, with the names that Prometheus' own libraries have.
    pub(super) fn process(&mut self, usage: &Usage) {
        let float = |value: f64| Samples::new(MetricType::Gauge, [(vec![], value)], Value::Float);
        let integer = |value: u64| Samples::new(MetricType::Gauge, [(vec![], value)], Value::Integer);
        let cpu = Samples::new(MetricType::Counter, [(vec![], usage.cpu_seconds)], Value::Float);
        let process = &mut self.process;
        process.register("cpu_seconds", "User and system CPU time since the start, in seconds", cpu);
        process.register("resident_memory_bytes", "Resident memory, in bytes", integer(usage.resident_memory));
        process.register("virtual_memory_bytes", "Virtual memory, in bytes", integer(usage.virtual_memory));
        process.register("open_fds", "Open file descriptors", integer(usage.open_files));
        process.register("max_fds", "The limit of open file descriptors", integer(usage.max_files));
        process.register("start_time_seconds", "When the process started, in seconds since 1970", float(usage.started));
    }

    /// The text that Prometheus reads.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.own);
        let _ = encode(&mut text, &self.process);
        text
    }
}

/// All samples of one name.
#[derive(Debug)]
struct Samples {
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

#[derive(Debug)]
enum Value {
    Integer(u64),
    Float(f64),
    Durations(Durations),
}

impl Samples {
    fn new<V>(kind: MetricType, samples: impl IntoIterator<Item = (Labels, V)>, value: impl Fn(V) -> Value) -> Self {
        Self { kind, samples: samples.into_iter().map(|(labels, number)| (labels, value(number))).collect() }
    }
}

impl EncodeMetric for Samples {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, value) in &self.samples {
            let mut encoder = encoder.encode_family(labels)?;
            match (self.kind, value) {
                (MetricType::Counter, Value::Integer(value)) => {
                    encoder.encode_counter::<NoLabelSet, _, u64>(value, None)?;
                }
                (MetricType::Counter, Value::Float(value)) => {
                    encoder.encode_counter::<NoLabelSet, _, u64>(value, None)?;
                }
                (_, Value::Integer(value)) => encoder.encode_gauge(value)?,
                (_, Value::Float(value)) => encoder.encode_gauge(value)?,
                (_, Value::Durations(Durations { sum, buckets })) => {
                    let count = buckets.iter().map(|(_, count)| count).sum();
                    encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)?;
                }
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        self.kind
    }

    fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_families_have_their_types() {
        let mut sheet = Sheet::new("m\"1\"\\\n");
        sheet.counter("x", "Help", [(vec![], 0)]);
        sheet.gauge("nothing", "No samples, no text", []);
        let text = sheet.render();
        assert!(text.contains("mode=\"m\\\"1\\\"\\\\\\n\"} 1\n"), "{text}");
        assert!(text.ends_with("# TYPE etcdproxy_x_total counter\netcdproxy_x_total 0\n"), "{text}");
        assert!(text.starts_with("# HELP etcdproxy_build_info Always 1. The labels say what runs.\n"), "{text}");
    }

    #[test]
    fn histograms_are_cumulative() {
        let mut sheet = Sheet::new("m");
        let buckets = vec![(0.5, 1), (1.0, 0), (f64::INFINITY, 2)];
        sheet.histogram("y_seconds", "Help", [(vec![("a", "b".to_owned())], Durations { sum: 2.5, buckets })]);
        let text = sheet.render();
        let expected = "# TYPE etcdproxy_y_seconds histogram\n\
                        etcdproxy_y_seconds_bucket{a=\"b\",le=\"0.5\"} 1\n\
                        etcdproxy_y_seconds_bucket{a=\"b\",le=\"1\"} 1\n\
                        etcdproxy_y_seconds_bucket{a=\"b\",le=\"+Inf\"} 3\n\
                        etcdproxy_y_seconds_sum{a=\"b\"} 2.5\n\
                        etcdproxy_y_seconds_count{a=\"b\"} 3\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
