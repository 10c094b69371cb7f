//! Which DPUs live. Clocks of two machines are not compared: a heartbeat that has changed counts from when that was seen.

use crate::index::{DpuEntry, Index};
use api::dpu::READY;
use jiff::Timestamp;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// The reason of a DPU whose heartbeat stands still.
pub const LOST: &str = "HeartbeatLost";

/// How a DPU's heart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// It has never said that it lives.
    Never,
    /// It lives.
    Beats,
    /// It said so, and no more.
    Lost,
}

/// How hearts are, by the Dpu's UID.
pub type Pulses = HashMap<String, Pulse>;

#[derive(Debug)]
struct Beat {
    at: Option<Timestamp>,
    /// After this it is lost.
    end: Instant,
}

/// The heartbeats of all Dpus.
#[derive(Debug)]
pub struct Heartbeats {
    patience: Duration,
    /// By UID.
    beats: HashMap<String, Beat>,
    next: Option<Instant>,
}

impl Heartbeats {
    /// None yet.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            beats: HashMap::new(),
            next: None,
        }
    }

    /// Takes over what the index has at `now`, which people call `today`.
    pub fn observe(&mut self, index: &Index, now: Instant, today: Timestamp) {
        let mut beats = HashMap::new();
        for dpu in index.dpus.values() {
            let at = dpu.status.last_heartbeat.as_ref().map(|time| time.0);
            let beat = match self.beats.remove(&dpu.uid) {
                Some(beat) if beat.at == at => beat,
                Some(_) => Beat {
                    at,
                    end: now + self.patience,
                },
                None if self.was_lost(dpu, at, today) => Beat { at, end: now },
                None => Beat {
                    at,
                    end: now + self.patience,
                },
            };
            beats.insert(dpu.uid.clone(), beat);
        }
        self.beats = beats;
        let living = self.beats.values().filter(|beat| beat.at.is_some());
        self.next = living.map(|beat| beat.end).filter(|end| *end > now).min();
    }

    /// Whether a former leader has found it lost, and nothing has come since: nobody is to be told that it lives.
    fn was_lost(&self, dpu: &DpuEntry, at: Option<Timestamp>, today: Timestamp) -> bool {
        let mut says = dpu.status.conditions.iter();
        let lost = says.any(|condition| condition.type_ == READY && condition.reason == LOST);
        let patience = i64::try_from(self.patience.as_secs()).unwrap_or(i64::MAX);
        lost && at.is_some_and(|at| today.as_second() - at.as_second() >= patience)
    }

    /// How the heart of the Dpu with this UID is.
    pub fn pulse(&self, uid: &str, now: Instant) -> Pulse {
        match self.beats.get(uid) {
            Some(Beat { at: Some(_), end }) if *end > now => Pulse::Beats,
            Some(Beat { at: Some(_), .. }) => Pulse::Lost,
            _ => Pulse::Never,
        }
    }

    /// How all hearts are, by UID.
    pub fn pulses(&self, now: Instant) -> Pulses {
        let uids = self.beats.keys();
        uids.map(|uid| (uid.clone(), self.pulse(uid, now)))
            .collect()
    }

    /// When the next one is lost, unless it says something before.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }
}
