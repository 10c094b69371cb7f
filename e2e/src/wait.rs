//! The one place that polls: for conditions in other programs which offer no event to wait for.

use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Asks `probe` until it answers with a value.
///
/// `Ok(None)` and `Err` both mean "not yet"; the last error is part of the message when time runs out.
///
/// # Errors
/// The deadline has passed: the message says what was waited for, how long, and the last reason.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let reason = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => String::new(),
            Err(error) => format!(": {error:#}"),
        };
        if start.elapsed() >= limit {
            return Err(anyhow!(
                "waited {:.0?} in vain for {what}{reason}",
                start.elapsed()
            ));
        }
        rest(pause);
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// As [`until`], for a condition without a value.
pub(crate) fn until_true(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, limit, || Ok(probe()?.then_some(())))
}

/// `park_timeout` may return early: another look at the condition does no harm.
fn rest(pause: Duration) {
    std::thread::park_timeout(pause);
}
