//! What can go wrong, one variant per decision of a caller: each is one gRPC code.

use tonic::Code;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Why a call has no result. The sentence names object, cause and remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// A field is missing or wrong.
    #[error("{0}")]
    Invalid(String),
    /// Something that was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// The id is taken by an object with other content.
    #[error("{0}")]
    Exists(String),
    /// Not as things are now.
    #[error("{0}")]
    Precondition(String),
    /// Somebody has the device open.
    #[error("{0}")]
    InUse(String),
    /// A guest has not let go yet, or another call is under way: come again.
    #[error("{0}")]
    Busy(String),
    /// No free function or namespace.
    #[error("{0}")]
    Exhausted(String),
    /// Beyond the source's size, or below the present one.
    #[error("{0}")]
    Range(String),
    /// The engine or the target does not answer; the outcome is not known: call again.
    #[error("{0}")]
    Away(String),
    /// The deadline has passed; the work goes on.
    #[error("{0}")]
    Late(String),
    /// This card can't.
    #[error("{0}")]
    Unable(String),
    /// The machine refused what it should not.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Whether the wish stands and is tried again, though this call failed.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Error::Away(_) | Error::Late(_) | Error::Busy(_))
    }

    pub(crate) fn code(&self) -> Code {
        match self {
            Error::Invalid(_) => Code::InvalidArgument,
            Error::NotFound(_) => Code::NotFound,
            Error::Exists(_) => Code::AlreadyExists,
            Error::Precondition(_) | Error::InUse(_) => Code::FailedPrecondition,
            Error::Busy(_) => Code::Aborted,
            Error::Exhausted(_) => Code::ResourceExhausted,
            Error::Range(_) => Code::OutOfRange,
            Error::Away(_) => Code::Unavailable,
            Error::Late(_) => Code::DeadlineExceeded,
            Error::Unable(_) => Code::Unimplemented,
            Error::Internal(_) => Code::Internal,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        tonic::Status::new(error.code(), error.to_string())
    }
}

impl From<engine::Error> for Error {
    fn from(error: engine::Error) -> Self {
        match error {
            engine::Error::Invalid(_) => Error::Internal(error.to_string()),
            engine::Error::Owned(_) => Error::Precondition(error.to_string()),
            _ => Error::Away(error.to_string()),
        }
    }
}

impl From<qemu::Error> for Error {
    fn from(error: qemu::Error) -> Self {
        match &error {
            qemu::Error::Refused { desc, .. } => refused(desc, &error),
            qemu::Error::Decode { .. } => Error::Internal(error.to_string()),
            _ => Error::Away(error.to_string()),
        }
    }
}

/// What QEMU's sentence means for the caller; `whole` is the sentence to show.
pub(crate) fn refused(desc: &str, whole: &impl ToString) -> Error {
    let has = |texts: &[&str]| texts.iter().any(|text| desc.contains(text));
    let sentence = whole.to_string();
    if has(&[
        "Failed to get",
        "is another process using",
        "Permission conflict",
    ]) {
        Error::Precondition(format!(
            "{sentence}; the volume is open elsewhere: close it there first"
        ))
    } else if has(&["No such file", "Unable to access credentials"]) {
        Error::NotFound(sentence)
    } else if has(&[
        "Connection refused",
        "Failed to connect",
        "timed out",
        "Connection reset",
        "No route to host",
        "unreachable",
        "Requested export not available",
        "non-properly terminated",
        "TLS",
        "Input/output error",
    ]) {
        Error::Away(sentence)
    } else {
        Error::Precondition(sentence)
    }
}

impl From<journal::Error> for Error {
    fn from(error: journal::Error) -> Self {
        let why = std::error::Error::source(&error).map(|why| format!(": {why}"));
        Error::Away(format!(
            "{error}{}; is the state directory's disk full?",
            why.unwrap_or_default()
        ))
    }
}
