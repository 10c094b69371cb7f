//! Follows the card: what it says is looked at, and when the connection was away, everything is.

use std::collections::BTreeMap;
use std::time::Duration;

use daemon::readiness::Check;
use proto::attacher::v1::State;
use proto::card::v1::event::Kind;
use proto::card::v1::{EngineRestarted, Event, SourceState};
use proto::volume::v1::{Device, ExposureKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::Keeper;
use crate::core::plan::plan;
use crate::core::wanted::Wanted;
use crate::failure::Failure;
use crate::id::{self, Id};

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(2);
/// A connection that held for so long was a good one.
const GOOD: Duration = Duration::from_secs(10);

/// Until `stop`. `check` says whether the card's service is there.
pub(crate) async fn follow(keeper: Keeper, check: Check, stop: CancellationToken) {
    let mut pause = FIRST;
    loop {
        let began = Instant::now();
        let why = tokio::select! {
            why = keeper.session(&check) => why,
            () = stop.cancelled() => return,
        };
        check.not_ready(format!("{why}; is opi-bridge running?"));
        keeper.0.metrics.disconnects.inc();
        if began.elapsed() > GOOD {
            pause = FIRST;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (2 * pause).min(LONGEST);
    }
}

impl Keeper {
    /// From one connection to its end, and why it ended.
    async fn session(&self, check: &Check) -> Failure {
        let mut events = match self.0.card.watch().await {
            Ok(events) => events,
            Err(why) => return why,
        };
        loop {
            match events.message().await {
                Ok(Some(event)) => {
                    if let Some(Kind::Started(_)) = event.kind {
                        if let Err(why) = self.look_at_all().await {
                            return why;
                        }
                        check.ready();
                    } else {
                        self.event(event).await;
                    }
                }
                Ok(None) => {
                    return Failure::new(Code::Unavailable, "the card's service ended the watch");
                }
                Err(status) => return Failure::of_card("watching the card", &status),
            }
        }
    }

    async fn event(&self, event: Event) {
        let by_object = self.by_object();
        let of = |name: &str| id::object_of(name).and_then(|object| by_object.get(object));
        match event.kind {
            Some(Kind::EngineRestarted(restarted)) => self.restarted(&by_object, &restarted),
            Some(Kind::Replayed(replayed)) => {
                for (name, why) in &replayed.failed {
                    tracing::warn!(object = name, "the card could not bring it back: {why}");
                }
                by_object.values().for_each(|id| self.wake(id));
            }
            Some(Kind::Source(source)) => {
                let good = source.state() == SourceState::Connected;
                let as_large = |device: &Device| device.size_bytes == source.size_bytes;
                of(&source.name)
                    .into_iter()
                    .for_each(|id| self.heard(id, good, as_large));
            }
            Some(Kind::Device(changed)) => {
                let good = changed.device.is_some();
                let same = |device: &Device| changed.device.as_ref() == Some(device);
                of(&changed.name)
                    .into_iter()
                    .for_each(|id| self.heard(id, good, same));
            }
            Some(Kind::Functions(_)) => self.tell_inventory().await,
            Some(Kind::Started(_)) | None => {}
        }
    }

    /// Looks after `id`, unless the news are good and nothing new: an attach hears of its own steps.
    fn heard(&self, id: &Id, good: bool, known: impl Fn(&Device) -> bool) {
        if good && self.0.table.news(id) {
            return;
        }
        let attached = self
            .0
            .hub
            .get(id)
            .is_some_and(|found| found.state() == State::Attached);
        let device = self.record(id).and_then(|record| record.device);
        if good && attached && device.is_some_and(|device| known(&device.0)) {
            return;
        }
        self.wake(id);
    }

    fn by_object(&self) -> BTreeMap<String, Id> {
        let records = self.records().into_iter();
        records
            .map(|record| (record.id().object(), record.id()))
            .collect()
    }

    /// What hosts held is marked as lost before anything else is done: a repair must not hide it.
    fn restarted(&self, by_object: &BTreeMap<String, Id>, restarted: &EngineRestarted) {
        for name in &restarted.lost {
            if let Some(id) = id::object_of(name).and_then(|object| by_object.get(object)) {
                self.0.died.add(id);
            }
        }
        by_object.values().for_each(|id| self.wake(id));
    }

    async fn tell_inventory(&self) {
        for host in self.hosts() {
            match self.inventory(host).await {
                Ok(inventory) => self.0.hub.inventory(inventory),
                Err(why) => tracing::debug!("{why}"),
            }
        }
    }

    /// After every connect: every record, and what no record knows.
    async fn look_at_all(&self) -> Result<(), Failure> {
        // Also says whether a restart of the engine is a loss.
        self.tell_inventory().await;
        let objects = self.0.card.objects().await?;
        let by_object = self.by_object();
        by_object.values().for_each(|id| self.wake(id));
        let mut left = 0;
        for (object, kind) in objects {
            // A record may have been made since, for this very object: it was written before the object was.
            if by_object.contains_key(&object) || self.0.journal.get(&object).is_some() {
                continue;
            }
            match self.drop_orphan(&object, kind).await {
                Ok(()) => {
                    tracing::info!(object, "removed from the card: it belongs to no attachment");
                }
                Err(why) => {
                    left += 1;
                    tracing::warn!(
                        object,
                        "belongs to no attachment, and stays on the card: {why}"
                    );
                }
            }
        }
        self.0.metrics.orphans.set(left);
        Ok(())
    }

    /// Nobody is thrown out: without a record it is not known whose it is.
    async fn drop_orphan(&self, object: &str, kind: ExposureKind) -> Result<(), Failure> {
        let seen = Box::pin(self.0.card.observe(object, kind)).await?;
        for step in plan(&Wanted::Gone { force: false }, &seen) {
            if self.0.journal.get(object).is_some() {
                return Ok(());
            }
            Box::pin(self.0.card.apply(object, &step)).await?;
        }
        Ok(())
    }
}
