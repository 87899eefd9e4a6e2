//! The application's side of the demonstration: a real gRPC client that knows one address.
//!
//! `client load ADDR` writes, reads and watches until its standard input ends, then reports what was lost.
//! `client leader ADDR,ADDR,…` prints the number (from 1) of the member that leads.

#[allow(dead_code, reason = "shared with the tests")]
mod load;

use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use etcd_client::Error;
use load::Load;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        ["load", addr] => load(addr).await,
        ["leader", addrs] => leader(addrs).await,
        _ => {
            eprintln!("usage: client load ADDR | client leader ADDR,ADDR,…");
            return ExitCode::from(2);
        }
    };
    done.unwrap_or_else(|err| {
        eprintln!("client: {err}");
        ExitCode::FAILURE
    })
}

async fn load(addr: &str) -> Result<ExitCode, Error> {
    let load = Load::start(addr, "/demo/").await?;
    let mut input_ends = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = &mut input_ends => break,
            _ = seconds.tick() => println!("client: {} writes acknowledged", load.writes()),
        }
    }
    let report = load.stop().await?;
    println!("{report}");
    Ok(if report.nothing_lost() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn leader(addrs: &str) -> Result<ExitCode, Error> {
    for (n, addr) in addrs.split(',').enumerate() {
        let Ok(client) = load::connect(addr).await else { continue };
        let Ok(status) = client.maintenance_client().status().await else { continue };
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            println!("{}", n + 1);
            return Ok(ExitCode::SUCCESS);
        }
    }
    eprintln!("client: no member of {addrs} leads");
    Ok(ExitCode::FAILURE)
}
