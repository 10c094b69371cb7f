//! What can go wrong with a command, one variant per decision of a caller.

use std::path::PathBuf;

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The monitor can't be reached: nothing was sent. The process is not there, or another client holds its monitor.
    #[error("monitor {}: {why}", .socket.display())]
    Unreachable {
        /// The monitor's socket.
        socket: PathBuf,
        /// What happened.
        why: String,
    },
    /// The connection had ended before the command was sent: it was not carried out.
    #[error("{command}: not sent, the monitor's connection has ended ({why})")]
    NotSent {
        /// The command.
        command: String,
        /// Why the connection ended.
        why: String,
    },
    /// The command was sent and no answer came: it was carried out, or not, or will be. Look before trying again.
    #[error("{command}: whether it was carried out is unknown ({why})")]
    UnknownOutcome {
        /// The command.
        command: String,
        /// The end of the connection, or the deadline.
        why: String,
    },
    /// The monitor refused the command.
    #[error("{command} was refused: {desc}")]
    Refused {
        /// The command.
        command: String,
        /// The error class: `GenericError`, `CommandNotFound`, `DeviceNotFound`, … (QMP specification, "Error").
        class: String,
        /// QEMU's sentence.
        desc: String,
    },
    /// The arguments can't be written as JSON, or the answer is not of the expected type.
    #[error("{command}: the {what} are not of the expected form: {source}")]
    Decode {
        /// The command.
        command: String,
        /// `arguments` or `contents of the answer`.
        what: &'static str,
        /// What serde found.
        source: serde_json::Error,
    },
    /// A job ended with an error, or was cancelled, or is not there.
    #[error("job {job}: {why}")]
    Job {
        /// The job's id.
        job: String,
        /// QEMU's sentence.
        why: String,
    },
}

impl Error {
    /// Whether QEMU refused the command with a sentence that contains `text`. QEMU has no finer error codes; only
    /// sentences that a test of this crate pins should be relied on.
    #[must_use]
    pub fn says(&self, text: &str) -> bool {
        matches!(self, Error::Refused { desc, .. } if desc.contains(text))
    }

    /// Whether the program on the other side has no such command (qemu-storage-daemon lacks many of QEMU's).
    #[must_use]
    pub fn is_unknown_command(&self) -> bool {
        matches!(self, Error::Refused { class, .. } if class == "CommandNotFound")
    }
}
