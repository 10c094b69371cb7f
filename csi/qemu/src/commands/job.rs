//! Jobs (QAPI: job.json, block-core.json). See also [`Qmp::finish_job`](crate::Qmp::finish_job).

use serde::Deserialize;

use super::{Done, command, none};

command! {
    /// All jobs.
    QueryJobs = "query-jobs" -> Vec<JobInfo> {}

    /// Cancels a job.
    JobCancel = "job-cancel" -> Done {
        /// The job.
        id: String,
    }

    /// Ends a job that is ready.
    JobComplete = "job-complete" -> Done {
        /// The job.
        id: String,
    }

    /// Forgets a job that is concluded.
    JobDismiss = "job-dismiss" -> Done {
        /// The job.
        id: String,
    }

    /// Carries out the result of a job that was started with `auto-finalize` off.
    JobFinalize = "job-finalize" -> Done {
        /// The job.
        id: String,
    }

    /// Pauses a job.
    JobPause = "job-pause" -> Done {
        /// The job.
        id: String,
    }

    /// Ends the pause of a job.
    JobResume = "job-resume" -> Done {
        /// The job.
        id: String,
    }

    /// Cancels a block job; one that is ready ends with what it has unless `force` is true.
    BlockJobCancel = "block-job-cancel" -> Done {
        /// The job.
        device: String,
        /// True cancels a job that is ready, or paused.
        #[serde(skip_serializing_if = "none")]
        force: Option<bool>,
    }

    /// Limits a block job.
    BlockJobSetSpeed = "block-job-set-speed" -> Done {
        /// The job.
        device: String,
        /// Bytes per second; 0 for no limit.
        speed: u64,
    }
}

/// A job.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobInfo {
    /// Its id.
    pub id: String,
    /// `commit`, `stream`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// How far it is.
    pub status: JobStatus,
    /// What is done, in a unit of its own.
    pub current_progress: u64,
    /// What is to be done, as estimated now.
    pub total_progress: u64,
    /// Why it failed; only when it is concluded.
    #[serde(default)]
    pub error: Option<String>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobStatus {
    /// Never seen.
    Undefined,
    /// Made.
    Created,
    /// At work.
    Running,
    /// Paused.
    Paused,
    /// Waits for [`JobComplete`].
    Ready,
    /// Paused while ready.
    Standby,
    /// Waits for the others of its transaction.
    Waiting,
    /// Waits for [`JobFinalize`].
    Pending,
    /// Being cancelled.
    Aborting,
    /// Over; waits for [`JobDismiss`].
    Concluded,
    /// Going.
    Null,
}
