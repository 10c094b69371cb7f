//! Progress: one line per step, with the time since the start, on a terminal and in a log alike.

use std::time::Instant;

/// When it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// Says on standard error what is done now.
    pub(crate) fn say(self, lab: u8, what: &str) {
        eprintln!("[lab {lab} {:5.1}s] {what}", self.seconds());
    }

    pub(crate) fn seconds(self) -> f32 {
        self.0.elapsed().as_secs_f32()
    }
}
