//! Jobs to their end (QAPI, jobs.json).

use tokio::time::Instant;

use crate::commands::{JobComplete, JobDismiss, JobStatus, QueryJobs};
use crate::{Error, EventsLost, Qmp};

impl Qmp {
    /// Waits until the job `id`, which was started with `auto-dismiss` off, is over, then dismisses it. A job that is
    /// ready and waits to be told so (an active commit, a mirror) is told. May be called again, by another process, too.
    ///
    /// # Errors
    /// [`Error::Job`] when it failed, was cancelled, or is not there; [`Error::UnknownOutcome`] when it is not over at
    /// the deadline (it goes on); and those of the commands.
    pub async fn finish_job(&self, id: &str, deadline: Instant) -> Result<(), Error> {
        let failed = |why: String| Error::Job {
            job: id.to_owned(),
            why,
        };
        let mut events = self.events();
        let mut completing = false;
        loop {
            let jobs = self.execute(&QueryJobs {}, deadline).await?;
            let job = jobs
                .into_iter()
                .find(|job| job.id == id)
                .ok_or_else(|| failed("there is no such job".to_owned()))?;
            match job.status {
                JobStatus::Concluded => {
                    let id = id.to_owned();
                    self.execute(&JobDismiss { id }, deadline).await?;
                    return job.error.map_or(Ok(()), |why| Err(failed(why)));
                }
                JobStatus::Ready if !completing => {
                    let id = id.to_owned();
                    self.execute(&JobComplete { id }, deadline).await?;
                    completing = true;
                    continue;
                }
                _ => {}
            }
            let changed = events.wait_for(|event| event.is("JOB_STATUS_CHANGE", "id", id));
            match tokio::time::timeout_at(deadline, changed).await {
                Ok(Ok(_) | Err(EventsLost::Missed(_))) => {}
                Ok(Err(EventsLost::Ended)) => {
                    return Err(unknown(id, "the connection ended"));
                }
                Err(_) => return Err(unknown(id, "the job is not over at the deadline")),
            }
        }
    }
}

fn unknown(id: &str, why: &str) -> Error {
    Error::UnknownOutcome {
        command: format!("job {id}"),
        why: why.to_owned(),
    }
}
