//! The codes of CNI (specification, section "Error") that the channel itself answers; those of `cni-bin`, which is not for libraries.

/// A `CNI_*` variable is missing or invalid.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Content could not be decoded.
pub const DECODING_FAILURE: u32 = 6;
/// The request is not valid.
pub const INVALID_CONFIG: u32 = 7;
/// A transient condition: the runtime should try again later.
pub const TRY_AGAIN_LATER: u32 = 11;
/// The request is well-formed, but rules or state refuse it, and a retry would not help. Outboard's own.
pub const REFUSED: u32 = 101;
