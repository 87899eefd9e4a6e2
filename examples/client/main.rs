//! The application's side: a real gRPC client that knows one address, or, for comparisons, several.
//!
//! `client load ADDR,…` writes, reads and watches until its standard input ends, then reports what was lost.
//! With `--json`, each line of output is JSON: ten times a second the calls so far, and at the end the report.
//! `client bench ADDR,… --clients N --seconds S --call put|get [--ca FILE]` measures throughput and latency; `--ca` is
//! for `https`.
//! `client watchers ADDR,… --watchers N --keys N --puts N` opens watchers, prints a line, waits for a line on standard
//! input, puts, and reports how long the events took; `client leases ADDR,… --leases N --clients N --ttl S` keeps leases
//! alive until its standard input ends. Both report in JSON.
//! `client leader ADDR,ADDR,…` prints the number (from 1) of the member that leads, and
//! `client make-leader NUMBER ADDR,ADDR,…` makes that member lead.

mod bench;
mod leases;
#[allow(dead_code, reason = "shared with the tests")]
mod load;
mod watchers;

use std::io::{self, BufRead as _, Read as _};
use std::process::ExitCode;
use std::time::Duration;

use bench::Bench;
use etcd_client::{Client, Error, ResponseHeader};
use leases::Leases;
use load::Load;
use watchers::Watchers;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args[..] {
        ["load", addrs] => load(addrs, false).await,
        ["load", "--json", addrs] => load(addrs, true).await,
        ["bench", ref args @ ..] => bench(args).await,
        ["watchers", ref args @ ..] => watchers(args).await,
        ["leases", ref args @ ..] => leases(args).await,
        ["leader", addrs] => leader(addrs).await,
        ["make-leader", number, addrs] => make_leader(number, addrs).await,
        _ => {
            eprintln!(
                "usage: client load [--json] ADDR,… | client bench ADDR,… [--clients N] [--seconds S] [--call put|get] \
                 [--ca FILE] | client watchers ADDR,… [--watchers N] [--keys N] [--puts N] | client leases ADDR,… \
                 [--leases N] [--clients N] [--ttl S] | client leader ADDR,ADDR,… | client make-leader NUMBER ADDR,ADDR,…"
            );
            return ExitCode::from(2);
        }
    };
    result.unwrap_or_else(|err| {
        eprintln!("client: {err}");
        ExitCode::FAILURE
    })
}

async fn load(addrs: &str, json: bool) -> Result<ExitCode, Error> {
    let load = Load::start(addrs, "/demo/").await?;
    let mut input_ends = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut ticks = tokio::time::interval(Duration::from_millis(if json { 100 } else { 1000 }));
    loop {
        tokio::select! {
            _ = &mut input_ends => break,
            _ = ticks.tick() => {
                if json {
                    println!("{}", load.done_json());
                } else {
                    println!("client: {} writes acknowledged", load.writes());
                }
            }
        }
    }
    let report = load.stop().await?;
    if json {
        println!("{}", report.json());
    } else {
        println!("{report}");
    }
    Ok(if report.nothing_lost() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn bench(args: &[&str]) -> Result<ExitCode, Error> {
    println!("{}", Bench::parse(args)?.run().await?);
    Ok(ExitCode::SUCCESS)
}

async fn watchers(args: &[&str]) -> Result<ExitCode, Error> {
    let line = async {
        let _ = tokio::task::spawn_blocking(|| io::stdin().lock().read_line(&mut String::new())).await;
    };
    println!("{}", Watchers::parse(args)?.run(line).await?);
    Ok(ExitCode::SUCCESS)
}

async fn leases(args: &[&str]) -> Result<ExitCode, Error> {
    let end = async {
        let _ = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new())).await;
    };
    println!("{}", Leases::parse(args)?.run(end).await?);
    Ok(ExitCode::SUCCESS)
}

/// The addresses, and the number of each flag, which is 1 unless it is given.
fn flags<const N: usize>(args: &[&str], names: [&str; N]) -> Result<(Vec<String>, [usize; N]), Error> {
    let invalid = |argument: &str| Error::InvalidArgs(format!("invalid argument {argument:?}"));
    let [addrs, flags @ ..] = args else { return Err(Error::InvalidArgs("no address".to_owned())) };
    let mut numbers = [1; N];
    for flag in flags.chunks(2) {
        let [name, number] = *flag else { return Err(invalid(flag[0])) };
        let at = names.iter().position(|known| *known == name).ok_or_else(|| invalid(name))?;
        numbers[at] = number.parse().ok().filter(|number| *number > 0).ok_or_else(|| invalid(number))?;
    }
    Ok((addrs.split(',').map(str::to_owned).collect(), numbers))
}

async fn leader(addrs: &str) -> Result<ExitCode, Error> {
    let (number, _) = find_leader(addrs).await?;
    println!("{number}");
    Ok(ExitCode::SUCCESS)
}

async fn make_leader(number: &str, addrs: &str) -> Result<ExitCode, Error> {
    let (leads, leader) = find_leader(addrs).await?;
    let next = addrs.split(',').zip(1..).find(|(_, n)| n.to_string() == number);
    let (addr, n) = next.ok_or_else(|| Error::InvalidArgs(format!("there is no member {number} in {addrs}")))?;
    if n != leads {
        let status = load::connect(addr).await?.maintenance_client().status().await?;
        let id = status.header().map_or(0, ResponseHeader::member_id);
        leader.maintenance_client().move_leader(id).await?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn find_leader(addrs: &str) -> Result<(usize, Client), Error> {
    for (addr, number) in addrs.split(',').zip(1..) {
        let Ok(client) = load::connect(addr).await else { continue };
        let Ok(status) = client.maintenance_client().status().await else { continue };
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            return Ok((number, client));
        }
    }
    Err(Error::InvalidArgs(format!("no member of {addrs} leads")))
}
