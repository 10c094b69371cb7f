//! Finds what is left of pods that are gone, and what pods lack that are there: NB, OVS, links, journals and the functions of
//! cards against the API server's pods.

mod compare;
mod observe;
mod pairs;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::Lab;
use crate::wait;

/// One sentence for each thing that is where it should not be, or is not where it should be; empty = all is right.
///
/// Only true at rest: a pod on its way up or down has some things and not others. See [`wait_for_none`].
///
/// # Errors
/// A database, a node or the API server cannot be asked.
pub fn find(lab: &Lab) -> Result<Vec<String>> {
    Ok(compare::leaks(&observe::observe(lab)?))
}

/// Waits until there are no leaks.
///
/// # Errors
/// There still are some at the limit: the message lists them.
pub fn wait_for_none(lab: &Lab, limit: Duration) -> Result<()> {
    wait::until_true(
        "all pods' ports, links, records and addresses, and no others",
        limit,
        || {
            let found = find(lab)?;
            ensure!(
                found.is_empty(),
                "{} leaks:\n  {}",
                found.len(),
                found.join("\n  ")
            );
            Ok(true)
        },
    )
}
