//! The bytes of a connection: who waits for which answer, and how a message of the monitor is told from another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jsonrpc::Framer;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinHandle;

use crate::event::Event;

/// The longest message: a list of the block nodes of a chain of hundreds is some MiB.
const MAX_MESSAGE: usize = 64 << 20;
/// Events that a slow subscriber may be behind.
const EVENTS: usize = 1024;

/// The error member of an answer (QMP specification, "Error").
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) class: String,
    pub(crate) desc: String,
}

/// What became of a command: its `return` as text, or an error; why the connection ended instead.
pub(crate) type Answer = Result<Result<String, Refusal>, String>;

/// One of the monitor's messages.
#[derive(Debug, Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "QMP")]
    greeting: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    #[serde(borrow, rename = "return")]
    result: Option<&'a RawValue>,
    error: Option<Refusal>,
    id: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    queue: UnboundedSender<Vec<u8>>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    pending: Mutex<Pending>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Pending {
    greeting: Option<oneshot::Sender<Answer>>,
    calls: HashMap<u64, oneshot::Sender<Answer>>,
    /// Dropped when the connection ends, so that subscribers learn it.
    events: Option<broadcast::Sender<Event>>,
    ended: Option<String>,
}

impl Shared {
    /// No code under the lock can panic half-way.
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self, why: &str) {
        let mut pending = self.pending();
        if pending.ended.is_some() {
            return;
        }
        pending.ended = Some(why.to_owned());
        pending.events = None;
        let greeting = pending.greeting.take();
        let calls = std::mem::take(&mut pending.calls);
        drop(pending);
        for reply in calls.into_values().chain(greeting) {
            // A caller that gave up is not told.
            let _ = reply.send(Err(why.to_owned()));
        }
    }

    fn take_in(&self, text: &str) -> Result<(), String> {
        let message: Message<'_> = serde_json::from_str(text)
            .map_err(|why| format!("the monitor sent what is no QMP message: {why}"))?;
        if message.event.is_some() {
            let event =
                Event::parse(text).map_err(|why| format!("an event is malformed: {why}"))?;
            tracing::debug!(event = event.name, data = %event.data, "QMP event");
            if let Some(events) = &self.pending().events {
                // Without subscribers nobody wants it.
                let _ = events.send(event);
            }
            return Ok(());
        }
        if let Some(greeting) = message.greeting {
            if let Some(reply) = self.pending().greeting.take() {
                let _ = reply.send(Ok(Ok(greeting.get().to_owned())));
            }
            return Ok(());
        }
        let outcome = match (message.result, message.error) {
            (Some(result), None) => Ok(result.get().to_owned()),
            (_, Some(refusal)) => Err(refusal),
            (None, None) => return Err("a message is neither answer nor event".to_owned()),
        };
        let Some(id) = message.id else {
            // An answer without id is about a request that QEMU could not parse: we write none.
            return Err(format!("an answer carries no id: {outcome:?}"));
        };
        if let Some(reply) = self.pending().calls.remove(&id) {
            let _ = reply.send(Ok(outcome));
        }
        Ok(())
    }
}

impl Session {
    /// Starts the reader and the writer. The receiver gets the greeting.
    pub(crate) fn start(stream: UnixStream) -> (Self, oneshot::Receiver<Answer>) {
        let (read, write) = stream.into_split();
        let (queue, outgoing) = unbounded_channel();
        let (greeting, greeted) = oneshot::channel();
        let shared = Arc::new(Shared {
            pending: Mutex::new(Pending {
                greeting: Some(greeting),
                calls: HashMap::new(),
                events: Some(broadcast::Sender::new(EVENTS)),
                ended: None,
            }),
            next: AtomicU64::new(1),
        });
        let tasks = [
            tokio::spawn(reader(read, Arc::clone(&shared))),
            tokio::spawn(writer(write, outgoing, Arc::clone(&shared))),
        ];
        let session = Session {
            shared,
            queue,
            tasks,
        };
        (session, greeted)
    }

    /// Sends a command; `Err` says why the connection ended before.
    pub(crate) fn send(&self, encode: impl FnOnce(u64) -> Vec<u8>) -> Result<Waiting<'_>, String> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        {
            let mut pending = self.shared.pending();
            if let Some(why) = &pending.ended {
                return Err(why.clone());
            }
            pending.calls.insert(id, reply);
        }
        // A closed queue means that the writer ended, which ends every call.
        let _ = self.queue.send(encode(id));
        Ok(Waiting {
            shared: &self.shared,
            id,
            answer,
        })
    }

    /// Whether the connection stands, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        self.shared.pending().ended.is_none()
    }

    /// A subscription; one that has ended already if the connection has.
    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        match &self.shared.pending().events {
            Some(events) => events.subscribe(),
            None => broadcast::Sender::new(1).subscribe(),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.shared.end("it was closed by this side");
    }
}

/// A command that was sent. Dropping it gives up waiting; it does not take the command back.
#[derive(Debug)]
pub(crate) struct Waiting<'a> {
    shared: &'a Shared,
    id: u64,
    answer: oneshot::Receiver<Answer>,
}

impl Waiting<'_> {
    pub(crate) async fn answer(&mut self) -> Answer {
        match (&mut self.answer).await {
            Ok(answer) => answer,
            Err(_) => Err("it was closed by this side".to_owned()),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.pending().calls.remove(&self.id);
    }
}

async fn reader(mut stream: OwnedReadHalf, shared: Arc<Shared>) {
    let mut framer = Framer::new(MAX_MESSAGE);
    let why = loop {
        match framer.next_frame() {
            Ok(Some(frame)) => {
                let taken = String::from_utf8(frame)
                    .map_err(|why| why.to_string())
                    .and_then(|text| shared.take_in(&text));
                if let Err(why) = taken {
                    break why;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => break why.to_string(),
        }
        let buffer = framer.buffer();
        buffer.reserve(16 << 10);
        match stream.read_buf(buffer).await {
            Ok(0) => break "the peer closed it".to_owned(),
            Ok(_) => {}
            Err(why) => break why.to_string(),
        }
    };
    shared.end(&why);
}

async fn writer(
    mut stream: OwnedWriteHalf,
    mut outgoing: UnboundedReceiver<Vec<u8>>,
    shared: Arc<Shared>,
) {
    while let Some(bytes) = outgoing.recv().await {
        if let Err(why) = stream.write_all(&bytes).await {
            shared.end(&why.to_string());
            return;
        }
    }
}
