//! What can go wrong, one variant per decision of the caller.

/// What every call of a [`Backend`](crate::Backend) returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was not carried out. The comment of each variant names the gRPC code that csi-controller answers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// NOT_FOUND.
    #[error("{object} does not exist; check the id, or whether it was deleted")]
    NotFound {
        /// Kind and id.
        object: String,
    },
    /// ALREADY_EXISTS: the name is taken by something else.
    #[error("{object} exists with another {differs}; use another name, or ask for what exists")]
    AlreadyExists {
        /// Kind and name.
        object: String,
        /// What differs, with both values.
        differs: String,
    },
    /// FAILED_PRECONDITION.
    #[error("{object} is in use by {by}; end that use first")]
    InUse {
        /// Kind and id.
        object: String,
        /// By what.
        by: String,
    },
    /// OUT_OF_RANGE: the size, or the number of something.
    #[error("{object}: {why}")]
    OutOfRange {
        /// Kind and id or name.
        object: String,
        /// What was asked for and what is possible.
        why: String,
    },
    /// RESOURCE_EXHAUSTED.
    #[error("{object}: {why}; free space, or add some")]
    NoSpace {
        /// Kind and id or name.
        object: String,
        /// What was asked for and what there is.
        why: String,
    },
    /// ABORTED: another call on the same object goes on; the same call may be made again.
    #[error("another operation on {object} is under way; call again")]
    Busy {
        /// Kind and id or name.
        object: String,
    },
    /// UNAVAILABLE: it was done, or not, or will be; the same call says which. Never a final code: the volume would leak.
    #[error("{object}: whether it was done is unknown ({why}); call again")]
    Unknown {
        /// Kind and id or name.
        object: String,
        /// What happened.
        why: String,
    },
    /// UNAVAILABLE: it can't be done now.
    #[error("{object}: {why}; call again")]
    Unavailable {
        /// Kind and id or name.
        object: String,
        /// Why, and what would help.
        why: String,
    },
    /// INVALID_ARGUMENT or UNIMPLEMENTED: this backend never does that.
    #[error("{what} is not supported: {why}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why not, and what is.
        why: String,
    },
    /// INVALID_ARGUMENT.
    #[error("{key} = {value:?} is not allowed; allowed: {allowed}")]
    Invalid {
        /// The parameter's or field's name.
        key: String,
        /// What was given.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// ABORTED, as the CSI specification wants it: the list must be read from its beginning.
    #[error(
        "the page token {token:?} is not one of this backend's; read the list from its beginning"
    )]
    Token {
        /// What was given.
        token: String,
    },
}

impl Error {
    /// [`Error::NotFound`] of an object.
    pub fn not_found(object: &(impl ToString + ?Sized)) -> Self {
        Self::NotFound {
            object: object.to_string(),
        }
    }

    /// [`Error::Invalid`] of a parameter.
    pub fn invalid(key: &str, value: &(impl ToString + ?Sized), allowed: &str) -> Self {
        Self::Invalid {
            key: key.to_owned(),
            value: value.to_string(),
            allowed: allowed.to_owned(),
        }
    }
}
