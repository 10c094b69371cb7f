//! One session: Welcome, heartbeats, full sets, the end.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::Stream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::call;
use super::desk::{Current, Desk, name};
use crate::heartbeat::{DEAD, beats, bounded, heartbeat};
use crate::proto::session_request::Message as FromHost;
use crate::proto::session_response::Message as FromDpu;
use crate::proto::synced_attachment::Outcome;
use crate::proto::{
    Attachment, FullSet, Hello, Reason, SessionRequest, SessionResponse, Synced, SyncedAttachment,
    Trouble, Welcome,
};
use crate::{Failure, epoch, shape};

/// A host that does not read is as good as dead: no more than this is kept for it.
const QUEUE: usize = 16;
/// Heartbeats leave so much of it for what counts.
const ROOM: usize = 4;
/// The last word gets out by then.
const FAREWELL: Duration = Duration::from_millis(500);
/// To a host that is dead, but perhaps hears.
const LAST_TRY: Duration = Duration::from_millis(100);
/// Calls of the former session, which were told to give up, may take so long before the new set is begun without them.
const FORMER: Duration = Duration::from_secs(10);

type Answer = Result<SessionResponse, Status>;

/// The loop's state.
struct Session {
    desk: Arc<Desk>,
    current: Arc<Current>,
    to: mpsc::Sender<Answer>,
    sync: Option<JoinHandle<Option<Synced>>>,
}

/// How it ends.
struct End {
    why: String,
    /// The last word gets out by then.
    farewell: Duration,
}

/// Welcomes the host and keeps the session. The answers are the host's stream; if it is dropped, the session ends.
pub(crate) fn start(
    desk: &Arc<Desk>,
    current: Arc<Current>,
    hello: &Hello,
    version: u32,
    from: Streaming<SessionRequest>,
) -> impl Stream<Item = Answer> + use<> {
    let (to, answers) = mpsc::channel(QUEUE);
    let welcome = Welcome {
        version,
        features: desk.dialect.common_features(&hello.features),
        epoch: Some(desk.epoch.clone()),
        release: desk.release.to_owned(),
        session: current.id.clone(),
        host: current.host.clone(),
    };
    let known = hello.epoch.as_ref().map(epoch::text).unwrap_or_default();
    tracing::info!(
        host = current.host,
        dpu = desk.node,
        session = current.id,
        release = hello.release,
        epoch = known,
        "session begun"
    );
    // The queue is empty, and its other end is in our hands.
    let _ = to.try_send(Ok(message(FromDpu::Welcome(welcome))));
    let gone = Gone(Arc::clone(&current));
    let session = Session {
        desk: Arc::clone(desk),
        current,
        to,
        sync: None,
    };
    desk.tasks.spawn(session.keep(from));
    ReceiverStream::new(answers).map(move |answer| {
        let _held = &gone;
        answer
    })
}

/// Dropped with the host's stream.
struct Gone(Arc<Current>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0
            .end(format!("host {} has ended the session", self.0.host));
    }
}

impl Session {
    async fn keep(mut self, from: Streaming<SessionRequest>) {
        let end = self.run(from).await;
        let Session {
            desk, current, to, ..
        } = self;
        current.end(end.why);
        let why = current.why();
        tracing::info!(
            host = current.host,
            dpu = desk.node,
            session = current.id,
            "session ended: {why}"
        );
        desk.over(&current);
        let said = to.try_send(Err(current.gone().into()));
        drop(to);
        if said.is_ok() {
            tokio::select! {
                () = current.peer.gone() => {}
                () = tokio::time::sleep(end.farewell) => {}
            }
        }
        current.peer.cut();
    }

    async fn run(&mut self, mut from: Streaming<SessionRequest>) -> End {
        let heard = self.desk.metrics.heard().clone();
        heard.now();
        let mut troubles = self.desk.ports.troubles();
        let mut beats = beats();
        let mut dead_at = Instant::now() + DEAD;
        let host = self.current.host.clone();
        loop {
            let done = tokio::select! {
                message = from.message() => match message {
                    Ok(Some(message)) => {
                        heard.now();
                        dead_at = Instant::now() + DEAD;
                        self.take(message.message)
                    }
                    Ok(None) => Err(format!("host {host} has ended the session")),
                    Err(status) => Err(self.broke(&status)),
                },
                () = tokio::time::sleep_until(dead_at) => return End {
                    why: format!("host {host} was not heard for {DEAD:?}"),
                    farewell: LAST_TRY,
                },
                _ = beats.tick() => self.beat(&troubles),
                Ok(()) = troubles.changed() => self.beat(&troubles),
                synced = synced(&mut self.sync) => {
                    self.sync = None;
                    self.say_synced(synced)
                }
                () = self.current.ended.cancelled() => Err(self.current.why()),
            };
            if let Err(why) = done {
                return End {
                    why,
                    farewell: FAREWELL,
                };
            }
        }
    }

    fn broke(&self, status: &Status) -> String {
        let host = &self.current.host;
        match self.current.peer.broken() {
            Some(broken) => format!("the connection with host {host} broke: {broken}"),
            None => format!("host {host} has left: {}", status.message()),
        }
    }

    fn take(&mut self, message: Option<FromHost>) -> Result<(), String> {
        match message {
            Some(FromHost::Heartbeat(beat)) => {
                let troubles = bounded(beat.troubles);
                self.desk.troubles(&self.current, troubles);
                Ok(())
            }
            Some(FromHost::FullSet(set)) => self.begin_sync(set),
            Some(FromHost::Hello(_)) => {
                Err(self.malformed("a second Hello in one session".to_owned()))
            }
            // A message of a newer release, which is not for us.
            None => Ok(()),
        }
    }

    fn malformed(&self, why: String) -> String {
        let who = name(&self.current.peer);
        self.desk.refusals.refuse("malformed", who, why.clone());
        why
    }

    fn begin_sync(&mut self, set: FullSet) -> Result<(), String> {
        if self.sync.is_some() {
            return Err(self.malformed("a FullSet before the former one was answered".to_owned()));
        }
        shape::set(&set).map_err(|failure| self.malformed(failure.cause))?;
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for attachment in set.attachments {
            match shape::attachment(&attachment) {
                Ok(()) => good.push(attachment),
                Err(failure) => {
                    self.malformed(failure.cause.clone());
                    bad.push(SyncedAttachment {
                        key: attachment.key,
                        outcome: Some(Outcome::Failure(failure.into())),
                    });
                }
            }
        }
        let (desk, current) = (Arc::clone(&self.desk), Arc::clone(&self.current));
        let sync = sync(desk, current, good, bad);
        self.sync = Some(self.desk.tasks.spawn(sync));
        Ok(())
    }

    fn say_synced(&self, synced: Option<Synced>) -> Result<(), String> {
        // None: the session has ended, or cni-node has lost the task.
        let synced = synced.ok_or_else(|| "the full set was not taken".to_owned())?;
        let sent = self.to.try_send(Ok(message(FromDpu::Synced(synced))));
        sent.map_err(|_| format!("host {} does not read", self.current.host))
    }

    fn beat(&self, troubles: &watch::Receiver<Vec<Trouble>>) -> Result<(), String> {
        if SystemTime::now() >= self.current.peer.expires() {
            let host = &self.current.host;
            return Err(format!("the certificate of host {host} has expired"));
        }
        if self.to.capacity() > ROOM {
            let beat = heartbeat(&troubles.borrow());
            let _ = self.to.try_send(Ok(message(FromDpu::Heartbeat(beat))));
        }
        Ok(())
    }
}

/// Pending while none is under way.
async fn synced(sync: &mut Option<JoinHandle<Option<Synced>>>) -> Option<Synced> {
    match sync {
        Some(sync) => sync.await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// None: the session has ended before its turn.
async fn sync(
    desk: Arc<Desk>,
    current: Arc<Current>,
    good: Vec<Attachment>,
    mut answered: Vec<SyncedAttachment>,
) -> Option<Synced> {
    let _turn = desk.syncing.lock().await;
    for calls in &current.former {
        // They were closed when their session ended.
        if tokio::time::timeout(FORMER, calls.wait()).await.is_err() {
            tracing::warn!(
                session = current.id,
                "{} calls of the former session do not end: not waited for",
                calls.len()
            );
        }
    }
    if current.ended.is_cancelled() {
        return None;
    }
    let (began, count) = (Instant::now(), good.len());
    let made = desk.ports.sync(&current.host, good).await;
    for failure in made.iter().filter_map(failure) {
        call::refused(&desk, &current, &failure);
    }
    answered.extend(made);
    tracing::info!(
        host = current.host,
        session = current.id,
        attachments = count,
        time_ms = began.elapsed().as_millis(),
        "full set taken"
    );
    desk.metrics.call("sync", "ok", began.elapsed());
    Some(Synced {
        attachments: answered,
    })
}

/// A port that is not there yet is nothing that the host has done.
fn failure(answer: &SyncedAttachment) -> Option<Failure> {
    let Some(Outcome::Failure(failure)) = &answer.outcome else {
        return None;
    };
    let failure = Failure::from(failure.clone());
    (failure.reason != Reason::NoPort).then_some(failure)
}

fn message(message: FromDpu) -> SessionResponse {
    SessionResponse {
        message: Some(message),
    }
}
