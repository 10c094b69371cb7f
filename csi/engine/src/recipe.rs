//! What makes an empty daemon serve.

use std::time::Duration;

use fail::fail_point;
use qemu::{Command, Qmp, Step};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::first_client;

/// How long one command may take: opening an image whose chain is long or not closed well, or an NBD server that is
/// waited for.
const STEP: Duration = Duration::from_secs(60);

/// QMP commands, in order, that make an empty qemu-storage-daemon serve. Kept on disk and shown to clients: keys and the
/// like belong into files that it names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Recipe(Vec<Step>);

impl Recipe {
    /// The recipe with one more command at its end.
    ///
    /// # Errors
    /// The command can't be written as JSON.
    pub fn then<C: Command>(mut self, command: &C) -> Result<Self, qemu::Error> {
        self.0.push(command.step()?);
        Ok(self)
    }

    /// Puts a command at the end.
    pub fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    /// The commands.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Runs it on an empty daemon. The error says which command failed and why.
    pub(crate) async fn run(&self, qmp: &Qmp) -> Result<(), Failure> {
        for (number, step) in (1..).zip(&self.0) {
            let done = qmp.run(step, Instant::now() + STEP).await;
            done.map_err(|why| {
                let (why, lost) = match why {
                    qemu::Error::Refused { desc, .. } => (desc, false),
                    other => (other.to_string(), true),
                };
                let sentence = format!("step {number} of the recipe ({step}): {why}");
                Failure { sentence, lost }
            })?;
            first_client::greet(step).await;
            fail_point!("start::step");
        }
        Ok(())
    }
}

/// Why a recipe was not run to its end.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) sentence: String,
    /// The monitor gave no answer: the process may have ended.
    pub(crate) lost: bool,
}

impl FromIterator<Step> for Recipe {
    fn from_iter<I: IntoIterator<Item = Step>>(steps: I) -> Self {
        Recipe(steps.into_iter().collect())
    }
}
