//! A byte stream with a reader task and a writer task.

use crate::{Dialect, Framer, LinkError, Message};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// A frame up to this size is parsed by the reader; a larger one by whoever consumes it, so that
/// the reader gets at the `echo` that waits behind a large reply at once.
const SMALL: usize = 64 << 10;
const READ: usize = 64 << 10;

/// How to speak.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which JSON-RPC.
    pub dialect: Dialect,
    /// Largest message that is accepted, in bytes. Also the bound on received bytes that wait for
    /// the consumer; beyond it the stream is not read further.
    pub max_frame: usize,
    /// Whether the reader itself answers `echo` requests with their own parameters (RFC 7047
    /// §4.1.11). They are then not seen by the consumer.
    pub answer_echo: bool,
}

impl Options {
    /// Messages of at most 1 GiB; `echo` is answered in the 1.0 dialect.
    pub fn new(dialect: Dialect) -> Self {
        Options {
            dialect,
            max_frame: 1 << 30,
            answer_echo: dialect == Dialect::V1,
        }
    }
}

/// A received frame, in the order of the stream.
#[derive(Debug)]
pub struct Inbound {
    content: Content,
    _budget: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Content {
    Parsed(Message),
    Large(Vec<u8>),
}

impl Inbound {
    /// Whether [`Inbound::parse`] has work to do that is worth a thread of its own.
    pub fn is_large(&self) -> bool {
        matches!(self.content, Content::Large(_))
    }

    /// The message.
    ///
    /// # Errors
    /// [`LinkError::Malformed`]; small frames were checked by the reader.
    pub fn parse(self) -> Result<Message, LinkError> {
        match self.content {
            Content::Parsed(message) => Ok(message),
            Content::Large(frame) => Message::parse(frame),
        }
    }
}

/// The sending side of a [`Link`]. Sending never waits; what was sent to a broken link is lost,
/// which [`Link::recv`] reports.
#[derive(Debug, Clone)]
pub struct Sender {
    dialect: Dialect,
    queue: UnboundedSender<Vec<u8>>,
    next_id: Arc<AtomicU64>,
}

impl Sender {
    /// Sends a request under a new id and gives the id.
    ///
    /// # Errors
    /// `params` cannot be written as JSON.
    pub fn request<P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<u64, serde_json::Error> {
        let id = self.reserve();
        self.request_as(id, method, params)?;
        Ok(id)
    }

    pub(crate) fn reserve(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn request_as<P: Serialize + ?Sized>(
        &self,
        id: u64,
        method: &str,
        params: &P,
    ) -> Result<(), serde_json::Error> {
        self.push(self.dialect.request(id, method, params)?);
        Ok(())
    }

    /// Sends a notification.
    ///
    /// # Errors
    /// `params` cannot be written as JSON.
    pub fn notify<P: Serialize + ?Sized>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<(), serde_json::Error> {
        self.push(self.dialect.notification(method, params)?);
        Ok(())
    }

    /// Answers a request; `id` is that of [`Message::Request`].
    ///
    /// # Errors
    /// `result` cannot be written as JSON.
    pub fn reply<R: Serialize + ?Sized>(
        &self,
        id: &str,
        result: &R,
    ) -> Result<(), serde_json::Error> {
        self.push(self.dialect.response(id, result)?);
        Ok(())
    }

    /// Answers a request with an error; `id` is that of [`Message::Request`].
    ///
    /// # Errors
    /// `error` cannot be written as JSON.
    pub fn refuse<E: Serialize + ?Sized>(
        &self,
        id: &str,
        error: &E,
    ) -> Result<(), serde_json::Error> {
        self.push(self.dialect.failure(id, error)?);
        Ok(())
    }

    fn push(&self, bytes: Vec<u8>) {
        // A closed queue means that the writer ended; the consumer learns why from Link::recv.
        let _ = self.queue.send(bytes);
    }
}

/// A stream that carries JSON-RPC. Its two tasks end when it is dropped.
#[derive(Debug)]
pub struct Link {
    sender: Sender,
    inbound: UnboundedReceiver<Result<Inbound, LinkError>>,
    clock: Arc<Clock>,
    ended: Option<LinkError>,
    tasks: [JoinHandle<()>; 2],
}

/// When bytes last came in: read by the inactivity probe, written by the reader.
#[derive(Debug)]
struct Clock {
    start: Instant,
    last_ns: AtomicU64,
}

impl Clock {
    fn tick(&self) {
        // Whole milliseconds would put an answer before the question that it came right after.
        let ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_ns.store(ns, Ordering::Relaxed);
    }
}

impl Link {
    /// Starts the two tasks. Must be called in a tokio runtime.
    pub fn open<IO>(io: IO, options: &Options) -> Link
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(io);
        let (queue, outgoing) = unbounded_channel();
        let (events, inbound) = unbounded_channel();
        let clock = Arc::new(Clock {
            start: Instant::now(),
            last_ns: AtomicU64::new(0),
        });
        let sender = Sender {
            dialect: options.dialect,
            queue,
            next_id: Arc::new(AtomicU64::new(1)),
        };
        let reader = Reader {
            framer: Framer::new(options.max_frame),
            budget: Arc::new(Semaphore::new(permits(options.max_frame))),
            budget_size: permits(options.max_frame),
            echo: options.answer_echo.then(|| sender.clone()),
            events: events.clone(),
            clock: clock.clone(),
        };
        let tasks = [
            tokio::spawn(reader.run(read)),
            tokio::spawn(run_writer(write, outgoing, events)),
        ];
        Link {
            sender,
            inbound,
            clock,
            ended: None,
            tasks,
        }
    }

    /// The sending side.
    pub fn sender(&self) -> &Sender {
        &self.sender
    }

    /// The next frame, in the order of the stream. Cancel safe.
    ///
    /// # Errors
    /// Why the link ended, from then on at every call.
    pub async fn recv(&mut self) -> Result<Inbound, LinkError> {
        if let Some(reason) = &self.ended {
            return Err(reason.clone());
        }
        let event = self.inbound.recv().await.unwrap_or(Err(LinkError::Eof));
        if let Err(reason) = &event {
            self.ended = Some(reason.clone());
        }
        event
    }

    /// When bytes were last received, whether or not they made a whole message.
    pub fn last_received(&self) -> Instant {
        self.clock.start + Duration::from_nanos(self.clock.last_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The budget is counted in KiB: a semaphore's count is limited to 32 bits.
fn permits(bytes: usize) -> usize {
    (bytes >> 10).clamp(1, u32::MAX as usize >> 4)
}

struct Reader {
    framer: Framer,
    budget: Arc<Semaphore>,
    budget_size: usize,
    echo: Option<Sender>,
    events: UnboundedSender<Result<Inbound, LinkError>>,
    clock: Arc<Clock>,
}

impl Reader {
    async fn run<R: AsyncRead>(mut self, mut stream: ReadHalf<R>) {
        let Err(reason) = self.read(&mut stream).await else {
            return;
        };
        let _ = self.events.send(Err(reason));
    }

    async fn read<R: AsyncRead>(&mut self, stream: &mut ReadHalf<R>) -> Result<(), LinkError> {
        loop {
            let buffer = self.framer.buffer();
            buffer.reserve(READ);
            if stream.read_buf(buffer).await? == 0 {
                let whole = self.framer.is_empty();
                return Err(if whole {
                    LinkError::Eof
                } else {
                    LinkError::Truncated
                });
            }
            self.clock.tick();
            while let Some(frame) = self.framer.next_frame()? {
                if self.deliver(frame).await?.is_none() {
                    return Ok(());
                }
            }
        }
    }

    /// `None` when the consumer is gone.
    async fn deliver(&self, frame: Vec<u8>) -> Result<Option<()>, LinkError> {
        let cost = permits(frame.len()).min(self.budget_size);
        let content = if frame.len() > SMALL {
            Content::Large(frame)
        } else {
            let message = Message::parse(frame)?;
            if let (Some(sender), Message::Request { id, method, params }) = (&self.echo, &message)
                && method == "echo"
            {
                let params: &serde_json::value::RawValue = serde_json::from_str(params.get())
                    .map_err(|e| LinkError::Malformed(e.to_string()))?;
                sender
                    .reply(id, params)
                    .map_err(|e| LinkError::Malformed(e.to_string()))?;
                return Ok(Some(()));
            }
            Content::Parsed(message)
        };
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let Ok(budget) = self.budget.clone().acquire_many_owned(cost).await else {
            return Ok(None);
        };
        let inbound = Inbound {
            content,
            _budget: budget,
        };
        Ok(self.events.send(Ok(inbound)).ok())
    }
}

async fn run_writer<W: AsyncWrite>(
    mut stream: WriteHalf<W>,
    mut outgoing: UnboundedReceiver<Vec<u8>>,
    events: UnboundedSender<Result<Inbound, LinkError>>,
) {
    while let Some(mut bytes) = outgoing.recv().await {
        // What is queued already goes out in one write.
        while bytes.len() < READ {
            let Ok(more) = outgoing.try_recv() else { break };
            bytes.extend_from_slice(&more);
        }
        let written = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        if let Err(error) = written.await {
            let _ = events.send(Err(error.into()));
            return;
        }
    }
}
