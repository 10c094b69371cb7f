//! Sends small datagrams as fast as one thread can, and counts them: `flood ADDRESS:PORT MILLISECONDS`.
//!
//! A program of its own, for it runs in a pod's network namespace.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What makes an Ethernet frame of the smallest size.
const PAYLOAD: [u8; 18] = [0; 18];
/// Between two looks at the clock.
const BURST: u32 = 64;

/// What was done.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) datagrams: u64,
    pub(super) nanoseconds: u64,
}

/// The whole program `flood`.
pub fn serve() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let sent = match (arguments.next(), arguments.next()) {
        (Some(to), Some(time)) => send(&to, &time),
        _ => Err(anyhow::anyhow!("usage: flood ADDRESS:PORT MILLISECONDS")),
    };
    let said = sent.and_then(|sent| Ok(serde_json::to_string(&sent)?));
    match said {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flood: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn send(to: &str, milliseconds: &str) -> Result<Sent> {
    let time = Duration::from_millis(milliseconds.parse().context("a number of milliseconds")?);
    let socket = UdpSocket::bind("0.0.0.0:0").context("a socket")?;
    socket
        .connect(to)
        .with_context(|| format!("no way to {to}"))?;
    let begun = Instant::now();
    let mut datagrams = 0;
    while begun.elapsed() < time {
        for _ in 0..BURST {
            match socket.send(&PAYLOAD) {
                Ok(_) => datagrams += 1,
                // Nobody listens there, and now and then the other side says so; a full queue is what is looked for.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => datagrams += 1,
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                Err(error) => return Err(error).with_context(|| format!("sending to {to}")),
            }
        }
    }
    let nanoseconds = begun.elapsed().as_nanos();
    Ok(Sent {
        datagrams,
        nanoseconds: u64::try_from(nanoseconds).unwrap_or(u64::MAX),
    })
}
