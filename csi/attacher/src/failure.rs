//! Why a call was not done: one code and one sentence, the same for every caller that joined.

use tonic::{Code, Status};

/// What a caller is told.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{sentence}")]
pub(crate) struct Failure {
    /// Which of the contract's codes.
    pub(crate) code: Code,
    /// Object, cause and remedy.
    pub(crate) sentence: String,
}

impl Failure {
    pub(crate) fn new(code: Code, sentence: impl Into<String>) -> Self {
        Self {
            code,
            sentence: sentence.into(),
        }
    }

    /// What the card answered to `step`. What tells nothing about the attachment itself is "outcome not known".
    pub(crate) fn of_card(step: &str, status: &Status) -> Self {
        let said = status.message();
        match status.code() {
            code @ (Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Aborted
            | Code::Internal) => Self::new(code, format!("{step}: {said}")),
            Code::PermissionDenied | Code::Unauthenticated => Self::new(
                Code::Unavailable,
                format!(
                    "{step}: the card's service does not let volume-attacher in ({said}): check its flags"
                ),
            ),
            code => Self::new(
                Code::Unavailable,
                format!(
                    "{step}: the card's service gives no answer ({code:?}: {said}); it is being tried again, repeat the call"
                ),
            ),
        }
    }

    /// Trying again does not help: the caller has to change something.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self.code,
            Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::ResourceExhausted
                | Code::OutOfRange
                | Code::Unimplemented
        )
    }

    /// The journal could not be written: nothing was begun.
    pub(crate) fn of_journal(error: &journal::Error) -> Self {
        Self::new(
            Code::Unavailable,
            format!(
                "{error}; nothing was done: make room or repair the disk of --state, then repeat"
            ),
        )
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        Status::new(failure.code, failure.sentence)
    }
}
