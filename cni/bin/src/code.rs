//! CNI error codes (CNI specification 1.1.0, section "Error"): 0–99 belong to the specification, 100 and up to a plugin.

/// The configuration's `cniVersion` is one that the plugin does not speak, or one that predates the verb.
pub const INCOMPATIBLE_VERSION: u32 = 1;
/// A field of the configuration is not supported; the message names its key and value.
pub const UNSUPPORTED_FIELD: u32 = 2;
/// The container is unknown: the runtime need not call DEL for it.
pub const UNKNOWN_CONTAINER: u32 = 3;
/// A `CNI_*` variable is missing or invalid; the message names it.
pub const INVALID_ENVIRONMENT: u32 = 4;
/// Input or output failed, standard input among them.
pub const IO_FAILURE: u32 = 5;
/// Content could not be decoded: standard input is not JSON, or the daemon's answer is not.
pub const DECODING_FAILURE: u32 = 6;
/// The configuration is JSON but not a valid network configuration.
pub const INVALID_CONFIG: u32 = 7;
/// The network namespace is invalid. Not in the specification's table, but the reference library's.
pub const INVALID_NETNS: u32 = 8;
/// A transient condition: the runtime should try again later.
pub const TRY_AGAIN_LATER: u32 = 11;
/// STATUS only: the plugin can't serve ADD.
pub const NOT_AVAILABLE: u32 = 50;
/// STATUS only: the plugin can't serve ADD, and existing attachments may have limited connectivity.
pub const NOT_AVAILABLE_LIMITED_CONNECTIVITY: u32 = 51;
/// CHECK: an attachment is not as its `prevResult` says. Outboard's own: the specification gives CHECK no code.
pub const CHECK_FAILED: u32 = 100;
/// The request is well-formed, but Outboard's rules or state refuse it and a retry would not help. Outboard's own.
pub const REFUSED: u32 = 101;
