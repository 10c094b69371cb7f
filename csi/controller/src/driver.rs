//! What the services work on.

use std::sync::Arc;

use daemon::readiness::Readiness;
use framework::{Backend, Capabilities, Volume, VolumeId};

use crate::backends::{Backends, Served};
use crate::dpu::Dpus;
use crate::locks::Locks;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::places::Places;
use crate::record::Records;
use crate::request::source::unknown;
use crate::status::{self, Answer};

/// Everything. Shared by all calls.
pub(crate) struct Driver {
    /// As it announces itself.
    pub(crate) name: String,
    pub(crate) backends: Backends,
    pub(crate) nodes: Nodes,
    pub(crate) dpus: Dpus,
    pub(crate) records: Records,
    pub(crate) locks: Locks,
    pub(crate) places: Places,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
}

/// A volume that exists, and its backend.
pub(crate) struct Found<'a> {
    pub(crate) served: &'a Served,
    pub(crate) volume: Volume,
}

impl Found<'_> {
    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.served.backend
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.served.backend.capabilities()
    }

    /// Its UUID, as everybody but CSI calls it.
    pub(crate) fn uuid(&self) -> String {
        self.volume.id.uuid().to_string()
    }
}

impl Driver {
    /// The backend of an id, and the id as the backend wants it; `None` for an id that this driver never gave.
    pub(crate) fn locate(&self, id: &str) -> Option<(&Served, VolumeId)> {
        let id: VolumeId = id.parse().ok()?;
        Some((self.backends.of_id(id.backend())?, id))
    }

    /// The volume of an id.
    ///
    /// # Errors
    /// NOT_FOUND, also of an id that this driver never gave.
    pub(crate) async fn volume(&self, id: &str) -> Answer<Found<'_>> {
        let (served, id) = self.locate(id).ok_or_else(|| unknown("volume_id", id))?;
        let volume = served.backend.get(&id).await.map_err(status::of)?;
        Ok(Found { served, volume })
    }
}
