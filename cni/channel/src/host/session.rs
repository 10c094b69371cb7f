//! One session: full sets, heartbeats, the end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use tonic::transport::Channel;

use super::dial::{Cut, Opened, why};
use super::keep::{Ended, Reached};
use super::{LinkState, Shared};
use crate::heartbeat::{DEAD, beats, bounded, heartbeat};
use crate::proto::channel_client::ChannelClient;
use crate::proto::session_request::Message as FromHost;
use crate::proto::session_response::Message as FromDpu;
use crate::proto::{
    Attachment, AttachmentKey, DetachRequest, Epoch, FullSet, SessionRequest, Synced, Trouble,
};

/// The DPU answers a full set by then, or the session is of no use.
const ANSWER: Duration = Duration::from_secs(60);
/// For what the host has detached while a set was under way.
const DETACH: Duration = Duration::from_secs(10);

/// What a call needs of a session.
pub(crate) struct Session {
    pub(crate) dpu: String,
    pub(crate) id: String,
    pub(crate) client: ChannelClient<Channel>,
    pub(crate) ended: CancellationToken,
    /// A full set is under way: an Attach that begins now waits, for the set was taken without it.
    pub(crate) syncing: watch::Sender<bool>,
}

impl Session {
    /// Returns once no full set is under way; false if the session has ended.
    pub(crate) async fn settled(&self) -> bool {
        let mut syncing = self.syncing.subscribe();
        tokio::select! {
            biased;
            () = self.ended.cancelled() => false,
            settled = syncing.wait_for(|syncing| !syncing) => settled.is_ok(),
        }
    }
}

/// One attachment of a set.
type Taken = (AttachmentKey, u64);

/// The loop's state.
struct Live<'a> {
    shared: &'a Shared,
    session: Arc<Session>,
    to: mpsc::Sender<SessionRequest>,
    peer: Cut,
    epoch: Epoch,
    release: String,
    features: Vec<String>,
    troubles: Vec<Trouble>,
    /// What the set that is under way has, and when its answer is late.
    under_way: Option<(Vec<Taken>, Instant)>,
    was_up: bool,
}

/// Keeps the session until it ends.
pub(crate) async fn live(shared: &Shared, opened: Opened) -> Ended {
    let session = Arc::new(Session {
        dpu: opened.dpu,
        id: opened.id,
        client: opened.client,
        ended: CancellationToken::new(),
        syncing: watch::Sender::new(false),
    });
    let mut live = Live {
        shared,
        session,
        to: opened.to,
        peer: opened.peer,
        epoch: opened.epoch,
        release: opened.release,
        features: opened.features,
        troubles: Vec::new(),
        under_way: None,
        was_up: false,
    };
    let why = live.run(opened.from).await;
    tracing::info!(
        host = shared.config.node,
        dpu = live.session.dpu,
        session = live.session.id,
        "session ended: {why}"
    );
    Ended {
        why,
        reached: match live.was_up {
            true => Reached::Session,
            false => Reached::Somebody,
        },
    }
}

impl Live<'_> {
    /// Returns why the session ends.
    async fn run(&mut self, mut from: tonic::Streaming<crate::proto::SessionResponse>) -> String {
        let shared = self.shared;
        let heard = shared.config.metrics.heard();
        heard.now();
        let mut troubles = shared.config.troubles.clone();
        let mut beats = beats();
        let mut dead_at = Instant::now() + DEAD;
        if let Err(why) = self.say_set() {
            return why;
        }
        loop {
            let late = self.under_way.as_ref().map(|(_, late)| *late);
            let done = tokio::select! {
                message = from.message() => match message {
                    Ok(Some(message)) => {
                        heard.now();
                        dead_at = Instant::now() + DEAD;
                        self.take(message.message);
                        Ok(())
                    }
                    Ok(None) => Err("it ended the session".to_owned()),
                    Err(status) => Err(why(&self.peer.0, &status)),
                },
                () = tokio::time::sleep_until(dead_at) => Err(format!("nothing was heard of it for {DEAD:?}")),
                _ = beats.tick() => self.beat(&troubles),
                Ok(()) = troubles.changed() => self.beat(&troubles),
                () = shared.again.notified(), if late.is_none() => self.say_set(),
                () = tokio::time::sleep_until(late.unwrap_or(dead_at)), if late.is_some() => {
                    Err(format!("it did not answer the full set within {ANSWER:?}"))
                }
            };
            if let Err(why) = done {
                return why;
            }
        }
    }

    fn take(&mut self, message: Option<FromDpu>) {
        match message {
            Some(FromDpu::Heartbeat(beat)) => {
                let troubles = bounded(beat.troubles);
                if self.troubles != troubles {
                    self.troubles = troubles;
                    if self.was_up {
                        self.up();
                    }
                }
            }
            Some(FromDpu::Synced(synced)) => self.synced(synced),
            // A message of a newer release, which is not for us.
            Some(FromDpu::Welcome(_)) | None => {}
        }
    }

    fn beat(&self, troubles: &watch::Receiver<Vec<Trouble>>) -> Result<(), String> {
        if SystemTime::now() >= self.peer.0.expires() {
            return Err("its certificate has expired".to_owned());
        }
        let beat = heartbeat(&troubles.borrow());
        // Full: it does not read. Whether it is dead is what its own heartbeats say.
        let _ = self.to.try_send(SessionRequest {
            message: Some(FromHost::Heartbeat(beat)),
        });
        Ok(())
    }

    fn say_set(&mut self) -> Result<(), String> {
        // Before the set is taken: an Attach that did not see this has its attachment in the set.
        self.session.syncing.send_replace(true);
        let attachments = (self.shared.config.set)();
        self.under_way = Some((taken(&attachments), Instant::now() + ANSWER));
        tracing::debug!(
            session = self.session.id,
            attachments = attachments.len(),
            "full set"
        );
        let set = SessionRequest {
            message: Some(FromHost::FullSet(FullSet { attachments })),
        };
        let sent = self.to.try_send(set);
        sent.map_err(|_| "it does not read what it is sent".to_owned())
    }

    fn synced(&mut self, synced: Synced) {
        let Some((taken_then, _)) = self.under_way.take() else {
            return;
        };
        let now: HashSet<Taken> = taken(&(self.shared.config.set)()).into_iter().collect();
        let gone = taken_then.into_iter().filter(|one| !now.contains(one));
        for one in gone {
            tokio::spawn(detach(Arc::clone(&self.session), one));
        }
        self.shared
            .synced
            .send_replace(Arc::new(synced.attachments));
        if !self.was_up {
            self.was_up = true;
            self.shared.config.metrics.up(true);
            // Who sees that the link is up finds its session.
            let session = Some(Arc::clone(&self.session));
            self.shared.session.send_replace(session);
            self.up();
        }
        self.session.syncing.send_replace(false);
    }

    fn up(&self) {
        self.shared.state.send_replace(LinkState::Up {
            dpu: self.session.dpu.clone(),
            epoch: self.epoch.clone(),
            release: self.release.clone(),
            features: self.features.clone(),
            troubles: self.troubles.clone(),
        });
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        self.session.ended.cancel();
        self.shared.session.send_replace(None);
        self.shared.config.metrics.up(false);
        self.shared.config.metrics.heard().nobody();
    }
}

fn taken(set: &[Attachment]) -> Vec<Taken> {
    let keys = set.iter();
    keys.filter_map(|one| Some((one.key.clone()?, one.attempt)))
        .collect()
}

/// It was in the set that the DPU has taken, and has left the host's set meanwhile.
async fn detach(session: Arc<Session>, (key, attempt): Taken) {
    let mut request = Request::new(DetachRequest {
        session: session.id.clone(),
        key: Some(key.clone()),
        attempt,
    });
    request.set_timeout(DETACH);
    let mut client = session.client.clone();
    tokio::select! {
        detached = client.detach(request) => if let Err(status) = detached {
            let (sandbox, ifname) = (key.sandbox, key.ifname);
            tracing::info!(session = session.id, sandbox, ifname, "not detached, the next full set does it: {}", status.message());
        },
        () = session.ended.cancelled() => {}
    }
}
