//! Why the local database does not do what an attachment needs, as errors.

use cni_bin::code;
use ovsdb::TransactError;

use super::BRIDGE;
use crate::error::Error;

/// No bridge to plug into; or one, which is not as it should be.
pub(super) fn no_bridge(exists: bool) -> Error {
    let cause = if exists {
        "has another datapath type than --datapath-type of cni-node says"
    } else {
        "does not exist in Open vSwitch"
    };
    Error::new(
        code::TRY_AGAIN_LATER,
        format!("The integration bridge {BRIDGE} {cause}."),
        "ovn-controller makes it and sets its type: see that it runs on this node.",
    )
}

/// The database refused a transaction, or did not answer.
pub(super) fn refused(error: &TransactError) -> Error {
    let remedy = match error {
        TransactError::Refused { .. } => "Look at ovsdb-server's log.",
        _ => "See that ovsdb-server runs on this node; the runtime tries again by itself.",
    };
    Error::new(
        code::TRY_AGAIN_LATER,
        format!("Open vSwitch: {error}."),
        remedy,
    )
}
