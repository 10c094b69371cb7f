//! How long each stage of one operation took.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

/// The stages of an operation, in order of their ends.
#[derive(Debug, Default)]
pub(crate) struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    /// Does the work and notes its time.
    pub(crate) async fn measure<T>(
        &mut self,
        stage: &'static str,
        work: impl Future<Output = T>,
    ) -> T {
        let (value, time) = timed(work).await;
        self.note(stage, time);
        value
    }

    /// Notes a time that was measured elsewhere.
    pub(crate) fn note(&mut self, stage: &'static str, time: Duration) {
        self.0.push((stage, time));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Duration)> + '_ {
        self.0.iter().copied()
    }
}

/// `wait_row=0.1ms netns=2.3ms …`
impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (stage, time)) in self.iter().enumerate() {
            let blank = if at == 0 { "" } else { " " };
            write!(f, "{blank}{stage}={:.1}ms", time.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

/// Work and its time, for stages that overlap.
pub(crate) async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let value = work.await;
    (value, started.elapsed())
}
