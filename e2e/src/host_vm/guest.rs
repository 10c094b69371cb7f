//! Scripts in the guest: the test's end of the channel that `init.sh` describes.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// What a script says.
#[derive(Debug)]
enum Said {
    Out(String),
    Err(String),
    Exit(i32),
}

/// How a script ended, and what it said that nobody has read before.
#[derive(Debug)]
pub struct GuestOutput {
    /// Its exit code; 137 when it was killed.
    pub code: i32,
    /// Standard output, without the last line feed.
    pub out: String,
    /// Standard error, the same.
    pub err: String,
}

#[derive(Debug, Default)]
struct State {
    scripts: HashMap<u64, Sender<Said>>,
    ready: Option<Sender<()>>,
    ended: bool,
}

/// The channel into a guest. Everybody who waits learns its end, which is QEMU's.
#[derive(Debug)]
pub(crate) struct Channel {
    stream: Mutex<UnixStream>,
    state: Arc<Mutex<State>>,
    next: AtomicU64,
}

/// No code under a lock of this file can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channel {
    /// Starts to listen. The receiver gets a word when the guest is ready.
    pub(crate) fn open(stream: UnixStream) -> Result<(Self, Receiver<()>)> {
        let (ready, told) = channel();
        let state = Arc::new(Mutex::new(State {
            ready: Some(ready),
            ..State::default()
        }));
        let lines = BufReader::new(stream.try_clone().context("the guest's channel")?);
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            listen(lines, &shared);
            let mut state = lock(&shared);
            state.ended = true;
            state.ready = None;
            state.scripts.clear();
        });
        let channel = Self {
            stream: Mutex::new(stream),
            state,
            next: AtomicU64::new(1),
        };
        Ok((channel, told))
    }

    pub(crate) fn start(&self, script: &str) -> Result<GuestTask<'_>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (says, said) = channel();
        {
            let mut state = lock(&self.state);
            if state.ended {
                bail!("the host VM has ended");
            }
            state.scripts.insert(id, says);
        }
        self.send(&format!("{id} run {}\n", BASE64_STANDARD.encode(script)))?;
        Ok(GuestTask {
            channel: self,
            id,
            script: script.to_owned(),
            said,
            err: Vec::new(),
            code: None,
        })
    }

    fn send(&self, line: &str) -> Result<()> {
        lock(&self.stream)
            .write_all(line.as_bytes())
            .context("the host VM has ended")
    }
}

fn listen(lines: BufReader<UnixStream>, state: &Mutex<State>) {
    for line in lines.split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let mut words = line.splitn(3, ' ');
        let (first, kind, text) = (words.next(), words.next(), words.next().unwrap_or_default());
        let mut state = lock(state);
        if first == Some("ready") {
            if let Some(ready) = state.ready.take() {
                // Nobody waits any more after the time limit.
                let _ = ready.send(());
            }
            continue;
        }
        let Some(id) = first.and_then(|word| word.parse().ok()) else {
            continue;
        };
        let said = match kind {
            Some("out") => Said::Out(text.to_owned()),
            Some("err") => Said::Err(text.to_owned()),
            _ => Said::Exit(text.parse().unwrap_or(-1)),
        };
        let over = matches!(said, Said::Exit(_));
        if let Some(script) = state.scripts.get(&id) {
            // A task that was dropped does not listen.
            let _ = script.send(said);
        }
        if over {
            state.scripts.remove(&id);
        }
    }
}

/// A script that runs in the guest. Dropped before its end it is killed, with all that it has started.
#[derive(Debug)]
pub struct GuestTask<'vm> {
    channel: &'vm Channel,
    id: u64,
    script: String,
    said: Receiver<Said>,
    err: Vec<String>,
    code: Option<i32>,
}

impl GuestTask<'_> {
    /// The next line of its standard output; none at its end.
    ///
    /// # Errors
    /// There is none within `limit`, or the machine ends.
    pub fn line(&mut self, limit: Duration) -> Result<Option<String>> {
        let until = Instant::now() + limit;
        while self.code.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            match self.said.recv_timeout(left) {
                Ok(Said::Out(line)) => return Ok(Some(line)),
                Ok(Said::Err(line)) => self.err.push(line),
                Ok(Said::Exit(code)) => self.code = Some(code),
                Err(why) => {
                    let why = match why {
                        RecvTimeoutError::Timeout => format!("said nothing for {limit:?}"),
                        RecvTimeoutError::Disconnected => "the host VM has ended".to_owned(),
                    };
                    return Err(anyhow!("in the host VM `{}`: {why}", self.script));
                }
            }
        }
        Ok(None)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end within `limit` (it is killed), or the machine ends.
    pub fn finish(mut self, limit: Duration) -> Result<GuestOutput> {
        let until = Instant::now() + limit;
        let mut out = Vec::new();
        while let Some(line) = self.line(until.saturating_duration_since(Instant::now()))? {
            out.push(line);
        }
        Ok(GuestOutput {
            code: self.code.context("a script that is over has a code")?,
            out: out.join("\n"),
            err: self.err.join("\n"),
        })
    }

    /// SIGKILL for it and all that it has started; its end is still to be awaited.
    ///
    /// # Errors
    /// The machine has ended.
    pub fn kill(&self) -> Result<()> {
        self.channel.send(&format!("{} kill\n", self.id))
    }
}

impl Drop for GuestTask<'_> {
    fn drop(&mut self) {
        if self.code.is_none() {
            // A machine that has ended runs no scripts.
            let _ = self.kill();
        }
    }
}
