//! Which gRPC code an error is. Nowhere else.
//!
//! The provisioner takes every code but UNAVAILABLE, DEADLINE_EXCEEDED, ABORTED and CANCELLED for final and forgets the
//! volume, so an outcome that is not known is never one of those, INTERNAL least of all. `details` stay empty, as the CSI
//! specification wants it.

use framework::Error;
use tonic::{Code, Status};

/// What calls return inside of this program.
pub(crate) type Answer<T> = Result<T, Status>;

/// Of a backend's error: its sentence names object, cause and remedy already.
#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
pub(crate) fn of(error: Error) -> Status {
    Status::new(code(&error), error.to_string())
}

fn code(error: &Error) -> Code {
    match error {
        Error::NotFound { .. } => Code::NotFound,
        Error::AlreadyExists { .. } => Code::AlreadyExists,
        Error::InUse { .. } => Code::FailedPrecondition,
        Error::OutOfRange { .. } => Code::OutOfRange,
        Error::NoSpace { .. } => Code::ResourceExhausted,
        Error::Busy { .. } | Error::Token { .. } => Code::Aborted,
        Error::Unknown { .. } | Error::Unavailable { .. } => Code::Unavailable,
        Error::Unsupported { .. } | Error::Invalid { .. } => Code::InvalidArgument,
    }
}

/// Whether the answer says that nothing was done and nothing will be.
pub(crate) fn is_final(code: Code) -> bool {
    !matches!(
        code,
        Code::Ok | Code::Aborted | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
    )
}

/// Of what csi-node-dpu answered: as it is where the code means the same to our caller, and never more than is known.
pub(crate) fn of_node(node: &str, status: &Status) -> Status {
    let code = match status.code() {
        code @ (Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::DeadlineExceeded) => code,
        // To our caller it would mean "do not call this ever again".
        Code::Unimplemented => Code::FailedPrecondition,
        // Among them INTERNAL and UNKNOWN.
        _ => Code::Unavailable,
    };
    let remedy = if code == Code::Unavailable {
        "; see whether it runs, then call again"
    } else {
        ""
    };
    Status::new(
        code,
        format!("csi-node-dpu of node {node}: {}{remedy}", status.message()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_never_final() {
        let text = String::new;
        let unknown = Error::Unknown {
            object: text(),
            why: text(),
        };
        assert!(!is_final(of(unknown).code()));
        for code in [
            Code::Internal,
            Code::Unknown,
            Code::DataLoss,
            Code::Cancelled,
            Code::Unavailable,
        ] {
            let status = of_node(
                "n1",
                &Status::with_details(code, "x", b"details".to_vec().into()),
            );
            assert_eq!(status.code(), Code::Unavailable);
            assert!(status.details().is_empty());
        }
        let full = of_node("n1", &Status::resource_exhausted("no free function"));
        assert_eq!(full.code(), Code::ResourceExhausted);
        assert!(is_final(full.code()));
    }
}
