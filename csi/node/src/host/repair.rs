//! The volume's disk, found and open. What is missing or dead is brought back by csi-node-dpu: it knows what is attached to this host,
//! and has the card look.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use proto::deadline::Deadline;
use proto::node::v1::host_agent_client::HostAgentClient;
use proto::node::v1::{RepairRequest, Symptom};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Status};
use uuid::Uuid;

use super::blocking::blocking;
use super::device::{self, Device};
use super::error::Error;
use super::node::Node;
use super::request::{Place, Published};

/// So long a function's disk may take to appear after its hot-plug. A loop device was there before anybody was told of it.
const PLUG: Duration = Duration::from_secs(3);

/// So long a call is held up to tell csi-node-dpu of its success.
const TELL: Duration = Duration::from_secs(3);

/// csi-node-dpu, over its socket for this host. It connects at the first call, and again after every loss.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    socket: PathBuf,
    client: HostAgentClient<Channel>,
}

/// Why there is no open disk.
enum Trouble {
    /// None says that it is the volume: it may still come.
    Missing(Error),
    /// There is one that does not work.
    Broken(Error),
    /// Neither waiting nor a repair helps.
    Final(Error),
}

/// The disk of a volume that was published to this node, open.
///
/// # Errors
///
/// [`Error::Unavailable`]: it did not come in time, or does not work, and could not be repaired.
pub(crate) async fn device(
    node: &Node,
    wanted: &Published,
    deadline: Deadline,
) -> Result<Arc<Device>, Error> {
    let grace = match wanted.place {
        Place::Loop(_) => Duration::ZERO,
        Place::Nvme(_) | Place::VirtioBlk(_) => PLUG,
    };
    let soon = deadline.last_start().min(Instant::now() + grace);
    let (symptom, why) = match look(node, wanted, soon).await {
        Ok(device) => return Ok(device),
        Err(Trouble::Final(why)) => return Err(why),
        Err(Trouble::Missing(why)) => (Symptom::Missing, why),
        Err(Trouble::Broken(why)) => (Symptom::Errors, why),
    };
    let asked = node.agent.repair(wanted.uuid, symptom, deadline).await;
    // Repaired or not: what is missing may come by itself, what is broken does not get well.
    let until = match (&asked, symptom) {
        (Err(_), Symptom::Errors) => Instant::now(),
        _ => deadline.last_start(),
    };
    if let Err(refused) = &asked {
        tracing::warn!(volume = %wanted.uuid, "{why}; it could not be repaired: {refused}");
    }
    let again = look(node, wanted, until).await;
    let why = match again {
        Ok(device) => return Ok(device),
        Err(Trouble::Missing(why) | Trouble::Broken(why) | Trouble::Final(why)) => why,
    };
    match (why, asked) {
        (Error::Unavailable(why), Err(refused)) => Err(Error::Unavailable(format!(
            "{why}. It was not repaired: {refused}"
        ))),
        (why, _) => Err(why),
    }
}

/// Tells csi-node-dpu that this host has let go of what died: it can't see that by itself where the new disk came before anybody
/// asked for it. Nobody's call fails for that.
pub(crate) async fn healed(node: &Node, volume: Uuid, raw: bool, deadline: Deadline) {
    let replaced = {
        let mut all = node.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&volume)
    };
    // The bind of a raw disk may have come alive with the disk, under the number that it had.
    if !(replaced || raw) || !node.agent.socket.exists() {
        return;
    }
    let repair = node.agent.repair(volume, Symptom::Unspecified, deadline);
    let told = match tokio::time::timeout(TELL, repair).await {
        Ok(told) => told,
        Err(_) => Err("csi-node-dpu does not answer".to_owned()),
    };
    if let Err(why) = told {
        tracing::warn!(%volume, "the disk is well again, and csi-node-dpu could not be told: {why}");
        if replaced {
            let mut all = node.replaced.lock().unwrap_or_else(PoisonError::into_inner);
            all.insert(volume);
        }
    }
}

/// Finds and opens it, waiting for it until then.
async fn look(node: &Node, wanted: &Published, until: Instant) -> Result<Arc<Device>, Trouble> {
    // It has a buffer for events.
    let waiting = Box::pin(device::published(&node.sysfs, wanted, until));
    let found = match waiting.await {
        Ok(found) => found,
        Err(why @ Error::Unavailable(_)) => return Err(Trouble::Missing(why)),
        Err(why) => return Err(Trouble::Final(why)),
    };
    let (sysfs, of) = (node.sysfs.clone(), wanted.clone());
    let open = move || Device::open(&sysfs, &found, &of);
    match blocking("opening a disk", open).await {
        Ok(device) => Ok(Arc::new(device)),
        Err(why @ Error::Unavailable(_)) => Err(Trouble::Broken(why)),
        Err(why) => Err(Trouble::Final(why)),
    }
}

impl Agent {
    pub(crate) fn new(socket: PathBuf) -> Self {
        let client = HostAgentClient::new(proto::uds::channel(socket.clone()));
        Self { socket, client }
    }

    /// Returns when the host can see the disk again. The error is for a sentence.
    async fn repair(
        &self,
        volume: Uuid,
        symptom: Symptom,
        deadline: Deadline,
    ) -> Result<(), String> {
        if !self.socket.exists() {
            return Err(format!(
                "there is no csi-node-dpu at {} (--dpu-socket)",
                self.socket.display()
            ));
        }
        tracing::info!(%volume, symptom = symptom.as_str_name(), "csi-node-dpu is asked for a repair");
        // The rest is for what comes after it.
        let deadline = deadline.half();
        let mut request = Request::new(RepairRequest {
            volume_uuid: volume.to_string(),
            symptom: symptom.into(),
            epoch: None,
        });
        request.set_timeout(deadline.left());
        let mut client = self.client.clone();
        let answer = tokio::time::timeout_at(deadline.end(), client.repair(request)).await;
        let late = || Status::deadline_exceeded("it does not answer in time");
        match answer.unwrap_or_else(|_| Err(late())) {
            Ok(_) => Ok(()),
            Err(status) => Err(format!("csi-node-dpu: {}", status.message())),
        }
    }
}
