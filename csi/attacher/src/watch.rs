//! A watcher's stream: all there is, `synced`, then every change.

use std::collections::VecDeque;

use futures::Stream;
use proto::attacher::v1::watch_response::Event;
use proto::attacher::v1::{Attachment, Synced, WatchResponse};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::hub::{Change, Subscription};

struct Watcher {
    first: VecDeque<Event>,
    changes: Receiver<Change>,
    host: String,
    stop: CancellationToken,
    ended: bool,
}

/// Only `host`'s events, unless that is empty. Ends with UNAVAILABLE at `stop`.
pub(crate) fn stream(
    subscription: Subscription,
    host: String,
    stop: CancellationToken,
) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + 'static {
    let of_host =
        |a: &Attachment| host.is_empty() || a.id.as_ref().is_some_and(|id| id.host == host);
    let present = subscription.present.into_iter().filter(of_host);
    let mut first: VecDeque<Event> = present.map(Event::Attachment).collect();
    first.push_back(Event::Synced(Synced {
        epoch: subscription.epoch,
    }));
    let watcher = Watcher {
        first,
        changes: subscription.changes,
        host,
        stop,
        ended: false,
    };
    futures::stream::unfold(watcher, |mut watcher| async move {
        let next = watcher.next().await?;
        let item = next.map(|event| WatchResponse { event: Some(event) });
        Some((item, watcher))
    })
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Event, Status>> {
        if self.ended {
            return None;
        }
        if let Some(event) = self.first.pop_front() {
            return Some(Ok(event));
        }
        loop {
            let change = tokio::select! {
                change = self.changes.recv() => change,
                () = self.stop.cancelled() => Err(RecvError::Closed),
            };
            let status = match change {
                Ok(change) => match self.event(change) {
                    Some(event) => return Some(Ok(event)),
                    None => continue,
                },
                Err(RecvError::Lagged(_)) => {
                    Status::resource_exhausted("this watcher does not keep up; watch again")
                }
                Err(RecvError::Closed) => {
                    Status::unavailable("volume-attacher is being restarted; watch again")
                }
            };
            self.ended = true;
            return Some(Err(status));
        }
    }

    fn event(&self, change: Change) -> Option<Event> {
        let (host, event) = match change {
            Change::Attachment(attachment) => {
                let host = attachment.id.clone().unwrap_or_default().host;
                (host, Event::Attachment(*attachment))
            }
            Change::Detached(id) => (id.host.clone(), Event::Detached(id.message())),
            Change::Inventory(inventory) => (inventory.host.clone(), Event::Inventory(*inventory)),
        };
        (self.host.is_empty() || self.host == host).then_some(event)
    }
}
