//! NetworkAttachmentDefinitions as the index keeps them.

use api::{NadError, NetworkAttachmentDefinition, OutboardNetwork};

/// A definition of `"type": "outboard"`, or one that cannot be read. Those for other plugins are
/// kept as `Ok(None)`: a selection of an unknown definition is another thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NadEntry {
    /// What it says.
    pub network: Result<Option<OutboardNetwork>, NadError>,
}

impl From<&NetworkAttachmentDefinition> for NadEntry {
    fn from(nad: &NetworkAttachmentDefinition) -> Self {
        Self {
            network: nad.spec.outboard(),
        }
    }
}
