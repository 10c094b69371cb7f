//! What went wrong: the same from the DPU's OVS to kubelet.

use prost::Message;
use tonic::{Code, Status};

use crate::proto::{self, Reason};

/// A header of HTTP/2 can't hold more than a few kilobytes.
const CAUSE: usize = 4096;
const REMEDY: usize = 2048;
/// The message beside the details is for logs of others.
const MESSAGE: usize = 256;

/// Why a call failed. Crosses the channel unchanged, also with a reason that this side does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}; {remedy}")]
pub struct Failure {
    /// For programs. A reason of a newer release is `Unspecified`.
    pub reason: Reason,
    /// CNI specification, section "Error", or one of Outboard's.
    pub code: u32,
    /// Object and cause.
    pub cause: String,
    /// What to do.
    pub remedy: String,
    /// The reason as it came.
    number: i32,
}

impl Failure {
    /// A failure of this side.
    pub fn new(
        reason: Reason,
        code: u32,
        cause: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            reason,
            code,
            cause: cause.into(),
            remedy: remedy.into(),
            number: reason.into(),
        }
    }

    /// Of a call that failed; none if the other side's program did not say it (TCP, TLS, HTTP/2 or gRPC did).
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let details = status.details();
        if details.is_empty() {
            return None;
        }
        proto::Failure::decode(details).ok().map(Self::from)
    }

    /// In metrics and events.
    #[must_use]
    pub fn reason_name(&self) -> &'static str {
        match self.reason {
            Reason::Unspecified => "failed",
            Reason::NoSession => "no_session",
            Reason::OldAttempt => "old_attempt",
            Reason::NoFunction => "no_function",
            Reason::FunctionTaken => "function_taken",
            Reason::NoPort => "no_port",
            Reason::Malformed => "malformed",
            Reason::NotReady => "not_ready",
        }
    }

    fn grpc_code(&self) -> Code {
        match self.reason {
            Reason::Unspecified => Code::Internal,
            Reason::NoSession => Code::FailedPrecondition,
            Reason::OldAttempt => Code::Aborted,
            Reason::NoFunction | Reason::NoPort => Code::NotFound,
            Reason::FunctionTaken => Code::AlreadyExists,
            Reason::Malformed => Code::InvalidArgument,
            Reason::NotReady => Code::Unavailable,
        }
    }

    /// With a gRPC code of one's own.
    pub(crate) fn status(self, code: Code) -> Status {
        let message = cut(&self.cause, MESSAGE).to_owned();
        let mut details = proto::Failure::from(self);
        details.cause = cut(&details.cause, CAUSE).to_owned();
        details.remedy = cut(&details.remedy, REMEDY).to_owned();
        Status::with_details(code, message, details.encode_to_vec().into())
    }
}

/// The first `most` bytes, but no half character.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = failure.grpc_code();
        failure.status(code)
    }
}

impl From<Failure> for proto::Failure {
    fn from(failure: Failure) -> Self {
        let reason = match failure.reason {
            Reason::Unspecified => failure.number,
            known => known.into(),
        };
        Self {
            reason,
            code: failure.code,
            cause: failure.cause,
            remedy: failure.remedy,
        }
    }
}

impl From<proto::Failure> for Failure {
    fn from(failure: proto::Failure) -> Self {
        Self {
            reason: failure.reason(),
            code: failure.code,
            number: failure.reason,
            cause: failure.cause,
            remedy: failure.remedy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_crosses_unchanged_also_with_a_reason_of_tomorrow() {
        let known = Failure::new(Reason::NoPort, 11, "port of é", "wait");
        let mut newer = proto::Failure::from(known.clone());
        newer.reason = 4711;
        for failure in [known, newer.clone().into()] {
            let status = Status::from(failure.clone());
            assert_eq!(Failure::of(&status), Some(failure));
        }
        assert_eq!(proto::Failure::from(Failure::from(newer.clone())), newer);
        assert_eq!(Failure::of(&Status::unavailable("gone")), None);
    }

    #[test]
    fn long_sentences_are_cut_between_characters() {
        let failure = Failure::new(Reason::NotReady, 11, "é".repeat(5000), "ü".repeat(5000));
        let crossed = Failure::of(&failure.into()).unwrap();
        assert_eq!(crossed.cause.len(), CAUSE);
        assert_eq!(crossed.remedy.len(), REMEDY);
        assert_eq!(cut("aé", 2), "a");
    }
}
