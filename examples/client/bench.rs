//! Measures throughput and latency: each connection makes one call after another, as fast as it can.

use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Certificate, Client, ConnectOptions, Error, TlsOptions};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const WARM_UP: Duration = Duration::from_secs(1);
const VALUE: [u8; 256] = [b'v'; 256];

#[derive(Debug, Clone, Copy)]
enum Call {
    Put,
    /// Linearizable.
    Get,
}

/// A measurement, as the command line describes it.
#[derive(Debug)]
pub(crate) struct Bench {
    addrs: Vec<String>,
    clients: usize,
    seconds: f64,
    call: Call,
    tls: Option<TlsOptions>,
}

impl Bench {
    /// From `ADDR,… --clients N --seconds S --call put|get [--ca FILE]`.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, Error> {
        let invalid = |argument: &str| Error::InvalidArgs(format!("bench: invalid argument {argument:?}"));
        let [addrs, flags @ ..] = args else { return Err(Error::InvalidArgs("bench: no address".to_owned())) };
        let addrs = addrs.split(',').map(str::to_owned).collect();
        let mut bench = Self { addrs, clients: 1, seconds: 1.0, call: Call::Get, tls: None };
        for flag in flags.chunks(2) {
            match *flag {
                ["--clients", number] => bench.clients = number.parse().map_err(|_| invalid(number))?,
                ["--seconds", number] => bench.seconds = number.parse().map_err(|_| invalid(number))?,
                ["--call", "put"] => bench.call = Call::Put,
                ["--call", "get"] => bench.call = Call::Get,
                ["--ca", file] => {
                    bench.tls = Some(TlsOptions::new().ca_certificate(Certificate::from_pem(std::fs::read(file)?)));
                }
                _ => return Err(invalid(flag[0])),
            }
        }
        Ok(bench)
    }

    /// Each client has one connection to one of the addresses.
    pub(crate) async fn run(self) -> Result<Value, Error> {
        let bench = Arc::new(self);
        let mut clients = Vec::new();
        for n in 0..bench.clients {
            let options = bench.tls.clone().map(|tls| ConnectOptions::new().with_tls(tls));
            let client = Client::connect([&bench.addrs[n % bench.addrs.len()]], options).await?;
            // Opens the connection, and writes the value that the gets read.
            client.kv_client().put(key(n), VALUE, None).await?;
            clients.push(client);
        }
        let start = Instant::now() + WARM_UP;
        let end = start + Duration::from_secs_f64(bench.seconds);
        let mut tasks = JoinSet::new();
        for (n, client) in clients.into_iter().enumerate() {
            tasks.spawn(call_all(client, bench.call, n, start, end));
        }
        let (mut times, mut errors) = (Vec::new(), 0);
        for (some_times, some_errors) in tasks.join_all().await {
            times.extend(some_times);
            errors += some_errors;
        }
        times.sort_unstable();
        #[allow(clippy::cast_precision_loss, reason = "no machine makes so many calls")]
        let ops_per_s = times.len() as f64 / bench.seconds;
        Ok(json!({
            "ops_per_s": ops_per_s, "p50_ms": percentile_ms(&times, 50), "p99_ms": percentile_ms(&times, 99), "errors": errors,
        }))
    }
}

/// Of times in ascending order; `None` if there are none.
pub(crate) fn percentile_ms(times: &[Duration], percent: usize) -> Option<f64> {
    let last = times.len().saturating_sub(1);
    times.get(last * percent / 100).map(|time| time.as_secs_f64() * 1000.0)
}

fn key(n: usize) -> String {
    format!("/bench/{n:04}")
}

/// The duration of each call that succeeded between `start` and `end`, and how many failed in that time.
async fn call_all(client: Client, call: Call, n: usize, start: Instant, end: Instant) -> (Vec<Duration>, u64) {
    let mut kv = client.kv_client();
    let key = key(n);
    let (mut times, mut errors) = (Vec::new(), 0);
    loop {
        let called = Instant::now();
        let result = match call {
            Call::Put => kv.put(key.as_str(), VALUE, None).await.map(drop),
            Call::Get => kv.get(key.as_str(), None).await.map(drop),
        };
        let returned = Instant::now();
        if returned >= end {
            return (times, errors);
        }
        if returned >= start {
            match result {
                Ok(()) => times.push(returned - called),
                Err(_) => errors += 1,
            }
        }
    }
}
