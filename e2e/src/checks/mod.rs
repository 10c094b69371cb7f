//! What a network and its storage must do, as checks with evidence: shared by `outboard-lab demo` and the cluster's tests.
//!
//! A [`Scene`] is deployed once; each [`Check`] of [`all`] then asks one thing of it. What a check says it saw, it saw: the
//! answer's contents are compared, not only that there was one. The same holds for volumes: [`VolumeScene`] and
//! [`of_volumes`].

mod list;
mod reach;
mod scene;
mod volumes;

use std::time::{Duration, Instant};

use anyhow::Result;

pub use list::all;
pub use scene::{NAMESPACE, Scene};
pub use volumes::{VolumeCheck, VolumeScene, of_volumes};

use crate::wait;

/// Rows of a Service follow its pods' readiness by some milliseconds: a check may ask again this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// One row of the table.
pub struct Check {
    /// What is shown.
    pub what: &'static str,
    /// Who asks.
    pub from: &'static str,
    /// Who is asked.
    pub to: &'static str,
    probe: fn(&Scene<'_>) -> Result<Seen>,
}

/// What was seen when it worked.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The answer, in a few words.
    pub text: String,
    /// Milliseconds: of the exchange on the network, without that of `kubectl exec`; of a volume's step, all of it.
    pub ms: f64,
    /// How long it took until it worked, if not at once.
    pub late: Option<Duration>,
}

impl Seen {
    pub(crate) fn new(text: impl Into<String>, ms: f64) -> Self {
        Self {
            text: text.into(),
            ms,
            late: None,
        }
    }
}

impl Check {
    /// Asks, for some seconds if need be.
    ///
    /// # Errors
    /// It never worked: the message has the last command and what it printed.
    pub fn run(&self, scene: &Scene<'_>) -> Result<Seen> {
        let started = Instant::now();
        let mut tries = 0;
        let mut last = started;
        let seen = wait::until(self.what, PATIENCE, || {
            tries += 1;
            last = Instant::now();
            (self.probe)(scene).map(Some)
        })?;
        let late = (tries > 1).then(|| last - started);
        Ok(Seen { late, ..seen })
    }
}
