//! Steps at which a test holds or kills a program (crate `fail`); a release has none.

use fail::FailScenario;

/// Reads the variable `FAILPOINTS` (crate `fail`: `step=pause;…`), and `OUTBOARD_KILL_AT`, the name of one step at which the
/// program ends as by `kill -9`. They count until the answer is dropped.
///
/// # Errors
/// `OUTBOARD_KILL_AT` names no step.
#[cfg(feature = "failpoints")]
pub(crate) fn arm() -> anyhow::Result<Option<FailScenario<'static>>> {
    let scenario = FailScenario::setup();
    if let Ok(step) = std::env::var("OUTBOARD_KILL_AT") {
        fail::cfg_callback(&step, die)
            .map_err(|why| anyhow::anyhow!("OUTBOARD_KILL_AT={step}: {why}"))?;
    }
    Ok(Some(scenario))
}

/// Nothing to arm: not even the variables' names are in a release, which `make images` looks for.
#[cfg(not(feature = "failpoints"))]
pub(crate) fn arm() -> anyhow::Result<Option<FailScenario<'static>>> {
    Ok(None)
}

/// Nothing is flushed, undone or dropped.
#[cfg(feature = "failpoints")]
fn die() {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    // It does not return, unless this is process 1 of a container, which no signal of its own ends.
    std::process::abort()
}
