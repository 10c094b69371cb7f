//! Why a call of CSI fails: one variant per decision of the caller, each with a sentence that names object, cause and
//! remedy.

use daemon::keyed::Busy;
use tonic::{Code, Status};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The request itself is wrong: repeating it does not help.
    #[error("{0}")]
    Invalid(String),
    /// There is no such volume, or not at that path.
    #[error("{0}")]
    NotFound(String),
    /// The path is used otherwise.
    #[error("{0}")]
    Exists(String),
    /// The volume or the node is in a state that has to be changed first.
    #[error("{0}")]
    Refused(String),
    /// Another call for this volume is under way.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// A size that can't be had.
    #[error("{0}")]
    OutOfRange(String),
    /// May be right later: repeat.
    #[error("{0}")]
    Unavailable(String),
    /// The caller's time is over; the work goes on.
    #[error("{0}")]
    Late(String),
}

impl Error {
    /// The code of gRPC, as the CSI specification gives it to the case.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound(_) => Code::NotFound,
            Self::Exists(_) => Code::AlreadyExists,
            Self::Refused(_) => Code::FailedPrecondition,
            Self::Busy(_) => Code::Aborted,
            Self::OutOfRange(_) => Code::OutOfRange,
            Self::Unavailable(_) => Code::Unavailable,
            Self::Late(_) => Code::DeadlineExceeded,
        }
    }
}

/// Without details: the CSI specification forbids them.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
