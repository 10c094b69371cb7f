//! Who is alive: one's own clock decides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::failure::cut;
use crate::proto::{Heartbeat, Trouble};

/// Each side says so often that it is alive.
pub const INTERVAL: Duration = Duration::from_millis(800);
/// Who has not been heard for so long is dead: three heartbeats.
pub const DEAD: Duration = Duration::from_millis(2400);

/// One heartbeat carries so many troubles at most.
const TROUBLES: usize = 16;
/// Of one trouble, bytes.
const SENTENCE: usize = 1024;

/// When to say that one is alive. Now is the first time.
pub(crate) fn beats() -> Interval {
    let mut beats = tokio::time::interval(INTERVAL);
    // One that comes late because the machine was busy must not be followed by a burst.
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

/// What a heartbeat says, bounded, whoever made it.
pub(crate) fn heartbeat(troubles: &[Trouble]) -> Heartbeat {
    Heartbeat {
        troubles: bounded(troubles.to_vec()),
    }
}

/// At most as many and as long as they may be.
pub(crate) fn bounded(mut troubles: Vec<Trouble>) -> Vec<Trouble> {
    troubles.truncate(TROUBLES);
    for trouble in &mut troubles {
        let end = cut(&trouble.sentence, SENTENCE).len();
        trouble.sentence.truncate(end);
    }
    troubles
}

/// When the other side was heard last. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Option<Instant>>>);

impl Heard {
    /// Now.
    pub(crate) fn now(&self) {
        self.set(Some(Instant::now()));
    }

    /// Nobody is there to be heard.
    pub(crate) fn nobody(&self) {
        self.set(None);
    }

    /// Ago; none while nobody is there.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.get().map(|heard| heard.elapsed())
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, heard: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = heard;
    }
}
