//! The request's way to cni-node and back: retried while the daemon restarts, never longer than the deadline.
//!
//! What is repeated must not be able to run twice. A refused, missing or reset connection proves that cni-node has not
//! read the whole request (a unix stream whose reader consumed everything ends in "end of file", not in a reset), so any
//! verb is sent again. After an end of file without an answer it may have begun: all verbs but ADD can be repeated
//! then, since they only remove or look. A full queue proves nothing bad: it is asked until the deadline. A broken
//! answer is never a reason to repeat.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cni_bin::code;
use cni_bin::wire::{self, Command, Failure, Reply, Request, WireError};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// How long a daemon may be away before the caller hears of it: what a restarted container needs to serve again.
const RETRY_FOR: Duration = Duration::from_secs(2);
/// The mean pause between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// A request with all that decides how it is made.
#[derive(Debug)]
pub(crate) struct Call {
    /// Where cni-node listens.
    pub(crate) socket: PathBuf,
    /// The version under which failures are reported.
    pub(crate) cni_version: String,
    /// When an answer is of no use any more.
    pub(crate) deadline: Instant,
    /// The seconds that the deadline stands for, for the sentence.
    pub(crate) budget: u64,
    /// The request; its `deadline_ms` is set for each attempt.
    pub(crate) request: Request,
}

/// How one attempt failed.
#[derive(Debug)]
enum Lost {
    /// Somebody listens, but has not accepted as many as may wait.
    Queued,
    /// The deadline has passed.
    Late,
    /// cni-node has surely not begun.
    Before(io::Error),
    /// The connection ended without a byte of an answer.
    Unanswered,
    /// The answer is not one.
    Answer(WireError),
    /// The request can't be sent at all.
    Request(WireError),
    /// Neither absence nor restart: permissions, for example.
    Other(io::Error),
}

impl Call {
    /// The answer, or why there is none. No thread, no runtime: every wait has what is left as its limit.
    pub(crate) fn run(mut self) -> Result<Reply, Failure> {
        let mut give_up = None;
        loop {
            let lost = match self.attempt() {
                Ok(reply) => return Ok(reply),
                Err(lost) => lost,
            };
            let now = Instant::now();
            let until = match lost {
                Lost::Queued => self.deadline,
                Lost::Unanswered if self.request.command == Command::Add => now,
                Lost::Before(_) | Lost::Unanswered => {
                    *give_up.get_or_insert_with(|| now + RETRY_FOR)
                }
                Lost::Late | Lost::Answer(_) | Lost::Request(_) | Lost::Other(_) => now,
            };
            let pause = jittered(PAUSE);
            if now + pause > until.min(self.deadline) {
                return Err(self.failure(lost));
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "no event tells that another process listens again"
            )]
            std::thread::sleep(pause);
        }
    }

    fn attempt(&mut self) -> Result<Reply, Lost> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.request.deadline_ms = for_the_daemon(left);
        let request = self.request.encode().map_err(Lost::Request)?;
        let mut stream = connect_at_once(&self.socket)?;
        self.limit(&stream)?;
        stream.write_all(&request).map_err(lost)?;
        stream.shutdown(Shutdown::Write).map_err(lost)?;
        let mut answer = Vec::new();
        let mut part = [0; 4096];
        // A byte more than a message may have is enough to refuse it.
        while answer.len() <= wire::MAX_BYTES {
            self.limit(&stream)?;
            match stream.read(&mut part) {
                Ok(0) if answer.is_empty() => return Err(Lost::Unanswered),
                Ok(0) => break,
                Ok(count) => answer.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if answer.is_empty() || error.kind() == ErrorKind::WouldBlock => {
                    return Err(lost(error));
                }
                // What came before the error decides: mostly it is cut off.
                Err(_) => break,
            }
        }
        Reply::decode(&answer).map_err(Lost::Answer)
    }

    /// No single read or write waits longer than the call may.
    fn limit(&self, stream: &UnixStream) -> Result<(), Lost> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Zero would mean "no limit".
        if left < Duration::from_millis(1) {
            return Err(Lost::Late);
        }
        stream
            .set_read_timeout(Some(left))
            .and_then(|()| stream.set_write_timeout(Some(left)))
            .map_err(Lost::Other)
    }

    fn failure(&self, lost: Lost) -> Failure {
        let command = self.request.command;
        let socket = self.socket.display();
        let again = match command {
            Command::Status => code::NOT_AVAILABLE,
            _ => code::TRY_AGAIN_LATER,
        };
        let (code, msg, details) = match lost {
            Lost::Late | Lost::Queued => (
                again,
                format!(
                    "cni-node at {socket} did not answer {command} within {} s",
                    self.budget
                ),
                "Read the log of the cni-node pod of this node; \"timeoutSeconds\" of the network configuration is the limit.".to_owned(),
            ),
            Lost::Before(error) => (
                again,
                format!(
                    "cni-node does not answer at {socket}: {}; tried for {} s",
                    reason(&error),
                    RETRY_FOR.as_secs()
                ),
                absent(&self.socket),
            ),
            Lost::Unanswered => (
                again,
                format!("cni-node at {socket} ended before it answered {command}"),
                "The runtime will try again; if this stays, read the log of the cni-node pod of this node.".to_owned(),
            ),
            Lost::Answer(WireError::Malformed { truncated: true, .. }) => (
                again,
                format!("cni-node at {socket} ended in the middle of its answer to {command}"),
                "The runtime will try again; if this stays, read the log of the cni-node pod of this node.".to_owned(),
            ),
            Lost::Answer(error) => (
                code::DECODING_FAILURE,
                format!("what listens at {socket} does not answer as cni-node does: {error}"),
                "outboard and cni-node are of different builds, or \"socket\" names another program's: run `outboard install` from cni-node's image.".to_owned(),
            ),
            Lost::Request(error) => (
                code::INVALID_CONFIG,
                format!("the network configuration is too large for cni-node: {error}"),
                "Correct the network's conflist, or the runtime that made it so large.".to_owned(),
            ),
            Lost::Other(error) => (
                code::IO_FAILURE,
                format!("the socket {socket} of cni-node can't be used: {}", reason(&error)),
                "outboard must run as root on the host, and \"socket\" must name cni-node's socket.".to_owned(),
            ),
        };
        Failure::new(self.cni_version.clone(), code, msg, details)
    }
}

/// The daemon's share of what is left, in milliseconds: its own sentence must come before ours, which knows less.
fn for_the_daemon(left: Duration) -> u64 {
    let reserve = (left / 10).min(Duration::from_secs(1));
    u64::try_from((left - reserve).as_millis()).unwrap_or(u64::MAX)
}

/// std's `connect` blocks while the listener's queue is full; this one says [`ErrorKind::WouldBlock`] at once.
fn connect_at_once(path: &Path) -> Result<UnixStream, Lost> {
    let lost = |errno: Errno| lost(errno.into());
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(lost)?;
    let address = UnixAddr::new(path).map_err(lost)?;
    match connect(fd.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::EAGAIN) => return Err(Lost::Queued),
        Err(errno) => return Err(lost(errno)),
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false).map_err(Lost::Other)?;
    Ok(stream)
}

fn lost(error: io::Error) -> Lost {
    match error.kind() {
        ErrorKind::NotFound
        | ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => Lost::Before(error),
        // The limit that `Call::limit` set.
        ErrorKind::WouldBlock => Lost::Late,
        _ => Lost::Other(error),
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "the socket does not exist".to_owned(),
        ErrorKind::ConnectionRefused => "nobody listens".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => {
            "it closed the connection".to_owned()
        }
        _ => error.to_string(),
    }
}

fn absent(socket: &Path) -> String {
    if socket == Path::new(wire::DEFAULT_SOCKET) {
        return "Check that the cni-node pod of this node runs (namespace outboard-system); the runtime will try again.".to_owned();
    }
    "Check that cni-node runs on this node with this --socket; the runtime will try again."
        .to_owned()
}

/// Half to one and a half of `mean`, so that a hundred waiting plugins don't come back in one instant.
fn jittered(mean: Duration) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.subsec_nanos());
    // Consecutive process ids and close instants must not give close pauses.
    let mixed = nanos.wrapping_mul(0x9E37_79B1) ^ std::process::id().wrapping_mul(0x85EB_CA6B);
    mean / 2 + mean * (mixed >> 8) / (1 << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_spread_around_their_mean() {
        for _ in 0..100 {
            let pause = jittered(PAUSE);
            assert!((PAUSE / 2..=PAUSE * 3 / 2).contains(&pause), "{pause:?}");
        }
    }

    #[test]
    fn the_daemon_has_less_time_than_its_caller() {
        assert_eq!(for_the_daemon(Duration::from_secs(110)), 109_000);
        assert_eq!(for_the_daemon(Duration::from_secs(1)), 900);
        assert_eq!(for_the_daemon(Duration::ZERO), 0);
    }
}
