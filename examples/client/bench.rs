//! As many calls as the connections carry, one after another on each: how many, and how long one takes.

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

/// What is asked for on the command line.
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
        let wrong = |what: &str| Error::InvalidArgs(format!("bench: {what} is not as it should be"));
        let [addrs, flags @ ..] = args else { return Err(wrong("the command line")) };
        let addrs = addrs.split(',').map(str::to_owned).collect();
        let mut bench = Self { addrs, clients: 1, seconds: 1.0, call: Call::Get, tls: None };
        for flag in flags.chunks(2) {
            match *flag {
                ["--clients", number] => bench.clients = number.parse().map_err(|_| wrong(number))?,
                ["--seconds", number] => bench.seconds = number.parse().map_err(|_| wrong(number))?,
                ["--call", "put"] => bench.call = Call::Put,
                ["--call", "get"] => bench.call = Call::Get,
                ["--ca", file] => {
                    bench.tls = Some(TlsOptions::new().ca_certificate(Certificate::from_pem(std::fs::read(file)?)));
                }
                _ => return Err(wrong(flag[0])),
            }
        }
        Ok(bench)
    }

    /// Each client has one connection, to one of the addresses.
    pub(crate) async fn run(self) -> Result<Value, Error> {
        let bench = Arc::new(self);
        let mut clients = Vec::new();
        for n in 0..bench.clients {
            let options = bench.tls.clone().map(|tls| ConnectOptions::new().with_tls(tls));
            let client = Client::connect([&bench.addrs[n % bench.addrs.len()]], options).await?;
            // What is read is there, and the connection is open.
            client.kv_client().put(key(n), VALUE, None).await?;
            clients.push(client);
        }
        let from = Instant::now() + WARM_UP;
        let until = from + Duration::from_secs_f64(bench.seconds);
        let mut tasks = JoinSet::new();
        for (n, client) in clients.into_iter().enumerate() {
            tasks.spawn(call_all(client, bench.call, n, from, until));
        }
        let (mut times, mut errors) = (Vec::new(), 0);
        for (some_times, some_errors) in tasks.join_all().await {
            times.extend(some_times);
            errors += some_errors;
        }
        times.sort_unstable();
        let percentile_ms = |percent: usize| {
            let last = times.len().saturating_sub(1);
            times.get(last * percent / 100).map(|time| time.as_secs_f64() * 1000.0)
        };
        #[allow(clippy::cast_precision_loss, reason = "so many calls there are not")]
        let ops_per_s = times.len() as f64 / bench.seconds;
        Ok(json!({
            "ops_per_s": ops_per_s, "p50_ms": percentile_ms(50), "p99_ms": percentile_ms(99), "errors": errors,
        }))
    }
}

fn key(n: usize) -> String {
    format!("/bench/{n:04}")
}

/// The time of each call that ended in the time that counts, and how many failed then.
async fn call_all(client: Client, call: Call, n: usize, from: Instant, until: Instant) -> (Vec<Duration>, u64) {
    let mut kv = client.kv_client();
    let key = key(n);
    let (mut times, mut errors) = (Vec::new(), 0);
    loop {
        let begun = Instant::now();
        let done = match call {
            Call::Put => kv.put(key.as_str(), VALUE, None).await.map(drop),
            Call::Get => kv.get(key.as_str(), None).await.map(drop),
        };
        let ended = Instant::now();
        if ended >= until {
            return (times, errors);
        }
        if ended >= from {
            match done {
                Ok(()) => times.push(ended - begun),
                Err(_) => errors += 1,
            }
        }
    }
}
