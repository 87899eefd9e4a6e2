//! An application with the Rust crate etcd-client. `lines.py` says what it prints.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use etcd_client::{Client, Error};
use tokio::time::{MissedTickBehavior, interval, timeout};

const TIMEOUT: Duration = Duration::from_secs(5);
const PERIOD: Duration = Duration::from_millis(50);
const REFRESH: Duration = Duration::from_millis(1500);
const LEASE_SECONDS: i64 = 5;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [addrs, prefix] = &args[..] else {
        eprintln!("usage: failover ADDR,ADDR,… PREFIX");
        return ExitCode::from(2);
    };
    match run(addrs, prefix).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("failover: {err}");
            ExitCode::FAILURE
        }
    }
}

async fn run(addrs: &str, prefix: &str) -> Result<(), Error> {
    let addrs: Vec<&str> = addrs.split(',').collect();
    let mut client = Client::connect(addrs, None).await?;
    let lease = client.lease_grant(LEASE_SECONDS, None).await?.id();
    say(format!("lease {lease}"));
    tokio::spawn(keep_alive(client.clone(), lease));
    tokio::spawn(watch(client.clone(), format!("{prefix}watched")));
    tokio::spawn(get(client.clone(), format!("{prefix}own")));
    put(client, format!("{prefix}own")).await;
    Ok(())
}

async fn put(mut client: Client, key: String) {
    let mut ticks = ticks(PERIOD);
    for number in 0_u64.. {
        ticks.tick().await;
        report("put", timeout(TIMEOUT, client.put(key.as_str(), number.to_string(), None)).await);
    }
}

async fn get(mut client: Client, key: String) {
    let mut ticks = ticks(PERIOD);
    loop {
        ticks.tick().await;
        report("get", timeout(TIMEOUT, client.get(key.as_str(), None)).await);
    }
}

async fn watch(mut client: Client, key: String) {
    let mut stream = match client.watch(key, None).await {
        Ok(stream) => stream,
        Err(err) => return say(format!("watch told: {err}")),
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                for kv in message.events().iter().filter_map(etcd_client::Event::kv) {
                    say(format!("event {}", kv.value_str().unwrap_or_default().trim_start_matches('0')));
                }
            }
            Ok(None) => return say("watch told: end".to_string()),
            Err(err) => return say(format!("watch told: {err}")),
        }
    }
}

/// Asks on one stream; after its end, on another.
async fn keep_alive(mut client: Client, lease: i64) {
    let mut ticks = ticks(REFRESH);
    loop {
        ticks.tick().await;
        // It has asked once, and has read the answer.
        let Ok((mut keeper, mut answers)) = client.lease_keep_alive(lease).await else {
            say("lease told: no stream".to_string());
            continue;
        };
        loop {
            ticks.tick().await;
            if let Err(err) = keeper.keep_alive().await {
                break say(format!("lease told: {err}"));
            }
            match answers.message().await {
                Ok(Some(answer)) if answer.ttl() > 0 => {}
                Ok(Some(_)) => say("lease told: it has ended".to_string()),
                Ok(None) => break say("lease told: end".to_string()),
                Err(err) => break say(format!("lease told: {err}")),
            }
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn report<T, E: Display>(kind: &str, ended: Result<Result<T, Error>, E>) {
    match ended {
        Ok(Ok(_)) => say(format!("{kind} ok")),
        Ok(Err(err)) => say(format!("{kind} failed: {err}")),
        Err(_) => say(format!("{kind} failed: no answer within {TIMEOUT:?}")),
    }
}

fn say(what: impl Display) {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    println!("@ {:.3} {what}", time.as_secs_f64());
}
