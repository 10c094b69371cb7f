//! What is done without a caller: after a start, after an event of the card, and again while something is not as wanted.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::attacher::v1::State;
use tokio::task::AbortHandle;

use super::{Answer, Call, Keeper};
use crate::core::assess::lost;
use crate::id::Id;
use crate::record::Goal;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// The next tries of attachments that are not as wanted.
#[derive(Debug, Default)]
pub(super) struct Retries(Mutex<HashMap<Id, Retry>>);

#[derive(Debug)]
struct Retry {
    pause: Duration,
    timer: AbortHandle,
}

/// Attachments whose device died, as the card said, and of which the record does not know yet. (A kill in between: the next process sees
/// it by the card's epoch.)
#[derive(Debug, Default)]
pub(super) struct Died(Mutex<HashSet<Id>>);

impl Died {
    pub(super) fn add(&self, id: &Id) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone());
    }

    pub(super) fn take(&self, id: &Id) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id)
    }
}

impl Keeper {
    /// Looks after `id` soon, unless that is under way: then once more after it.
    pub(crate) fn wake(&self, id: &Id) {
        if let Some(ticket) = self.0.table.repair(id) {
            let (keeper, id) = (self.clone(), id.clone());
            tokio::spawn(async move { keeper.work(&id, Call::Repair, ticket).await });
        }
    }

    pub(super) async fn repair(&self, id: &Id) -> Answer {
        let Some(mut record) = self.record(id) else {
            self.0.hub.remove(id);
            return Ok(None);
        };
        if record.goal != Goal::Attached {
            return self.take_away(record).await.map(|()| None);
        }
        if self.0.died.take(id) && record.acknowledged {
            let died = lost(&record, "the card's engine died");
            self.publish(&record, State::Lost, died.sentence.clone());
            record.lost = Some(died);
            self.save(&record).await?;
        }
        match self.until_attached(&mut record).await {
            Ok(seen) => {
                if !record.acknowledged {
                    record.acknowledged = true;
                    self.save(&record).await?;
                }
                self.settle(&mut record, &seen).await.map(Some)
            }
            Err(why) => Err(self.failed(record, None, why).await),
        }
    }

    /// Work on `id` ended: what is not as wanted is tried again after a pause.
    pub(super) fn after(&self, id: &Id, again: bool) {
        let settled = match self.record(id) {
            None => true,
            Some(record) if record.goal != Goal::Attached => false,
            Some(_) => {
                let state = self.0.hub.get(id).map(|found| found.state());
                matches!(state, Some(State::Attached | State::Lost))
            }
        };
        let mut all = self
            .0
            .retries
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(id);
        if let Some(before) = &before {
            before.timer.abort();
        }
        if settled {
            drop(all);
            if again {
                self.wake(id);
            }
            return;
        }
        let longer = before.map_or(FIRST, |before| (2 * before.pause).min(LONGEST));
        let pause = if again { FIRST } else { longer };
        let (keeper, of) = (self.clone(), id.clone());
        let timer = tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            keeper.wake(&of);
        });
        let timer = timer.abort_handle();
        all.insert(id.clone(), Retry { pause, timer });
    }
}
