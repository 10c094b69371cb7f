//! One vhost-user-blk disk in the place of the disk that KubeVirt wrote for the volume.

use super::layout::{Layout, quoted};
use super::property::{self, Property};
use super::tree::{Document, Edit, Id, apply};
use super::{Error, alias};
use crate::resolver::LONGEST_PATH;
use crate::vmi::Vmi;

/// A volume that becomes a vhost-user-blk disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The volume's name, which is its disk's, too.
    pub volume: String,
    /// The socket that a storage daemon serves, as `compute` sees it.
    pub path: String,
    /// Request queues; the daemon must serve as many.
    pub queues: u32,
    /// How long QEMU waits between two tries to reach a daemon that went away, in seconds. None: it does not try, the disk waits until
    /// the VM is started anew. Only for daemons that keep what is in flight (VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD): QEMU
    /// begins again with the first request that is not known as done, though later ones may be. Without that memory, writes that
    /// were acknowledged are done again from pages of the guest that hold something else by then, and others never.
    pub reconnect: Option<u32>,
}

impl Block {
    /// The volumes that an annotation's value names: `data, logs:4`, the number of queues behind a colon. Their sockets lie below
    /// `hooks`, by the names of their claims: that is what whoever publishes a volume knows of it.
    ///
    /// # Errors
    ///
    /// What is wrong with the value, or with a volume of the VM that it names.
    pub fn asked(value: &str, vmi: &Vmi, hooks: &str) -> Result<Vec<Self>, String> {
        let words = value.split(',').map(str::trim).filter(|w| !w.is_empty());
        let blocks: Vec<Self> = words
            .map(|word| Self::one(word, vmi, hooks))
            .collect::<Result<_, _>>()?;
        if let Some(first) = blocks.first()
            && vmi.spec.domain.launch_security.is_some()
        {
            return Err(format!(
                "the VM has launchSecurity, and a storage daemon can't read a guest's encrypted memory; leave {} out",
                first.volume
            ));
        }
        for (n, block) in blocks.iter().enumerate() {
            if let Some(twin) = blocks[..n].iter().find(|b| b.path == block.path) {
                return Err(format!(
                    "volumes {} and {} are of one claim, and its socket serves one disk; leave one of them out",
                    twin.volume, block.volume
                ));
            }
        }
        Ok(blocks)
    }

    fn one(word: &str, vmi: &Vmi, hooks: &str) -> Result<Self, String> {
        let (volume, queues) = word.split_once(':').unwrap_or((word, "1"));
        if !plain(volume) {
            return Err(format!("{volume:?} is no name of a volume"));
        }
        let queues = queues.parse().ok().filter(|n| (1..=256).contains(n));
        let queues =
            queues.ok_or_else(|| format!("{word:?}: queues are a number from 1 to 256"))?;
        let claim = claim(vmi, volume)?;
        let path = format!("{hooks}/outboard/blk/{claim}/disk.sock");
        if path.len() > LONGEST_PATH {
            return Err(format!(
                "the path {path} is too long for a socket; give the claim of volume {volume} a shorter name"
            ));
        }
        Ok(Self {
            queues,
            volume: volume.to_owned(),
            path,
            // qemu-storage-daemon (10.0) has no such memory.
            reconnect: None,
        })
    }
}

/// The name of a volume's claim. A DataVolume's is its own.
fn claim<'v>(vmi: &'v Vmi, volume: &str) -> Result<&'v str, String> {
    let found = vmi.spec.volumes.iter().find(|v| v.name == volume);
    let found = found.ok_or_else(|| {
        format!("the VM has no volume {volume}; name one that is among spec.volumes")
    })?;
    let source = (&found.persistent_volume_claim, &found.data_volume);
    let (claim, hot) = match source {
        (Some(claim), _) => (claim.claim_name.as_str(), claim.hotpluggable),
        (None, Some(volume)) => (volume.name.as_str(), volume.hotpluggable),
        (None, None) => {
            return Err(format!(
                "volume {volume} is no claim's; only a persistentVolumeClaim or a dataVolume has a socket"
            ));
        }
    };
    if hot {
        return Err(format!(
            "volume {volume} is hotpluggable, and so comes to another pod than the VM's; leave hotpluggable out"
        ));
    }
    if !plain(claim) {
        return Err(format!("volume {volume}: {claim:?} is no name of a claim"));
    }
    Ok(claim)
}

/// A name that Kubernetes would give, for it becomes a part of a path.
fn plain(name: &str) -> bool {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(label)
}

/// The domain with this volume's disk on its socket.
pub(super) fn put(text: &str, block: &Block) -> Result<String, Error> {
    let document = Document::parse(text)?;
    let devices = document.devices()?;
    let refused = |fault| Error::Disk {
        volume: block.volume.clone(),
        fault,
    };
    let mut found = None;
    for id in document.named(devices, "disk") {
        if document.child_attribute(id, "alias", "name")? == Some(alias(&block.volume)) {
            found = Some(id);
        }
    }
    let id = found.ok_or_else(|| {
        refused("the VM has no such disk; the annotation names a volume that is among spec.domain.devices.disks")
    })?;
    let device = document.attribute(id, "device")?;
    if !matches!(device.as_deref(), None | Some("disk")) {
        return Err(refused("it is a CD-ROM or a LUN; make it a disk"));
    }
    if document.child_attribute(id, "target", "bus")?.as_deref() != Some("virtio") {
        return Err(refused("it is not on bus virtio; set disk.bus to virtio"));
    }
    if document.child(id, "readonly").is_some() {
        return Err(refused(
            "it is read-only; libvirt has no such vhost-user disk",
        ));
    }
    let target = document.child_attribute(id, "target", "dev")?;
    let target = target.ok_or_else(|| refused("it has no target name; KubeVirt gives one"))?;
    let element = element(&document, block, id, &target)?;
    let edit = Edit {
        at: document.span(id),
        with: element,
    };
    // Else QEMU lets the guest believe that the disk writes through: it never flushes, and what it has synced may be lost with
    // the storage daemon.
    let flushed = Property {
        name: "config-wce",
        kind: "bool",
        value: "false".into(),
    };
    property::put(&apply(text, vec![edit]), &block.volume, &flushed)
}

/// Caching, I/O mode, serial number and the like are the storage daemon's: libvirt refuses them here.
fn element(document: &Document<'_>, block: &Block, id: Id, target: &str) -> Result<String, Error> {
    let layout = Layout::of(document, id);
    let model = document.attribute(id, "model")?;
    let model = model.map(|m| format!(" model='{}'", quoted(&m)));
    // Said always: QEMU would take one queue per processor, and fail on a daemon that serves fewer.
    let queues = block.queues;
    let source = format!("<source type='unix' path='{}'", quoted(&block.path));
    let source = match block.reconnect {
        None => format!("{source}/>"),
        Some(seconds) => layout.inner().element(
            &format!("{source}>"),
            &[format!("<reconnect enabled='yes' timeout='{seconds}'/>")],
            "source",
        ),
    };
    let mut children = vec![
        format!("<driver name='qemu' type='raw' queues='{queues}'/>"),
        source,
        format!("<target dev='{}' bus='virtio'/>", quoted(target)),
        format!("<alias name='{}'/>", quoted(&alias(&block.volume))),
    ];
    for kept in ["boot", "address"] {
        children.extend(
            document
                .child(id, kept)
                .map(|id| document.slice(id).to_owned()),
        );
    }
    let model = model.unwrap_or_default();
    let start = format!("<disk type='vhostuser' device='disk'{model}>");
    Ok(layout.element(&start, &children, "disk"))
}
