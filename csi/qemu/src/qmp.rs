//! A connection to a monitor.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::command::{Command, Step};
use crate::commands::Version;
use crate::error::Error;
use crate::event::Events;
use crate::session::{Answer, Session};

/// How long until a full queue of a monitor's socket is tried again.
const FULL: Duration = Duration::from_millis(5);

/// A cheap handle to a connection. When the last clone is dropped the connection is closed and the monitor is free for
/// the next client. It never comes back by itself: connect again and look what became of the commands in flight.
#[derive(Debug, Clone)]
pub struct Qmp(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    session: Session,
    socket: PathBuf,
    version: Version,
}

#[derive(serde::Deserialize)]
struct Greeting {
    version: Version,
}

#[derive(Serialize)]
struct Request<'a, A: Serialize + ?Sized> {
    execute: &'a str,
    arguments: &'a A,
    id: u64,
}

impl Qmp {
    /// Connects to the monitor's unix socket and negotiates. A monitor that another client holds answers when that
    /// client has gone.
    ///
    /// # Errors
    /// [`Error::Unreachable`], also when the deadline passes.
    pub async fn connect(socket: impl AsRef<Path>, deadline: Instant) -> Result<Self, Error> {
        let socket = socket.as_ref();
        let unreachable = |why: String| Error::Unreachable {
            socket: socket.to_owned(),
            why,
        };
        let connecting = async {
            let stream = loop {
                match UnixStream::connect(socket).await {
                    // Others wait already, more than the socket's queue holds; nothing tells when there is room.
                    Err(why) if why.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(FULL).await;
                    }
                    connected => {
                        break connected
                            .map_err(|why| unreachable(format!("can't connect ({why})")))?;
                    }
                }
            };
            let (session, greeted) = Session::start(stream);
            let greeting = match greeted.await {
                Ok(Ok(Ok(text))) => text,
                Ok(Err(why)) => return Err(unreachable(why)),
                _ => return Err(unreachable("no greeting".to_owned())),
            };
            let greeting: Greeting = serde_json::from_str(&greeting)
                .map_err(|why| unreachable(format!("its greeting is not QMP's ({why})")))?;
            let mut waiting = session
                .send(|id| {
                    br#"{"execute":"qmp_capabilities","id":"#.iter().copied()
                    .chain(format!("{id}}}\n").into_bytes()).collect()
                })
                .map_err(unreachable)?;
            match waiting.answer().await {
                Ok(Ok(_)) => {}
                Ok(Err(refusal)) => return Err(unreachable(refusal.desc)),
                Err(why) => return Err(unreachable(why)),
            }
            drop(waiting);
            Ok(Qmp(Arc::new(Inner {
                session,
                socket: socket.to_owned(),
                version: greeting.version,
            })))
        };
        match tokio::time::timeout_at(deadline, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(unreachable(
                "no greeting before the deadline (another client holds the monitor, or the process hangs)"
                    .to_owned(),
            )),
        }
    }

    /// What runs on the other side.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.0.version
    }

    /// The monitor's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.0.socket
    }

    /// Whether the connection stands, as far as is known: the process may have ended in this moment.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.session.is_open()
    }

    /// Whether there is no other clone of this handle: dropping it closes the connection.
    #[must_use]
    pub fn is_last(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// The events from now on. Subscribe before the command whose events are wanted.
    #[must_use]
    pub fn events(&self) -> Events {
        Events(self.0.session.events())
    }

    /// Runs a command. Commands of one connection are carried out in the order in which their futures are first polled.
    ///
    /// # Errors
    /// See [`Error`]. After [`Error::UnknownOutcome`] look before trying again.
    pub async fn execute<C>(&self, command: &C, deadline: Instant) -> Result<C::Reply, Error>
    where
        C: Command + Sync,
    {
        self.call(C::NAME, command, deadline).await
    }

    /// Runs a command that is given as data.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn run(&self, step: &Step, deadline: Instant) -> Result<Value, Error> {
        self.call(&step.execute, &step.arguments, deadline).await
    }

    async fn call<A, R>(&self, name: &str, arguments: &A, deadline: Instant) -> Result<R, Error>
    where
        A: Serialize + Sync,
        R: DeserializeOwned,
    {
        let decode = |what| {
            move |source| Error::Decode {
                command: name.to_owned(),
                what,
                source,
            }
        };
        let arguments = serde_json::value::to_raw_value(arguments).map_err(decode("arguments"))?;
        let request = |id| {
            let request = Request {
                execute: name,
                arguments: &*arguments,
                id,
            };
            let mut bytes = serde_json::to_vec(&request).expect("a name, JSON text and a number");
            bytes.push(b'\n');
            bytes
        };
        let mut waiting = self.0.session.send(request).map_err(|why| Error::NotSent {
            command: name.to_owned(),
            why,
        })?;
        let unknown = |why: String| Error::UnknownOutcome {
            command: name.to_owned(),
            why,
        };
        let answer: Answer = tokio::time::timeout_at(deadline, waiting.answer())
            .await
            .map_err(|_| unknown("no answer before the deadline".to_owned()))?;
        match answer.map_err(|why| unknown(format!("the connection ended: {why}")))? {
            Ok(text) => serde_json::from_str(&text).map_err(decode("contents of the answer")),
            Err(refusal) => Err(Error::Refused {
                command: name.to_owned(),
                class: refusal.class,
                desc: refusal.desc,
            }),
        }
    }
}
