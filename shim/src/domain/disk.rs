//! One vhost-user-blk disk in the place of the disk that KubeVirt wrote for the volume.

use super::layout::{Layout, quoted};
use super::tree::{Document, Edit, Id, apply};
use super::{Block, Error, alias};

/// How long QEMU waits between two tries to reach a storage daemon that went away, in seconds.
const RECONNECT: u32 = 1;

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
    Ok(apply(text, vec![edit]))
}

/// Caching, I/O mode, serial number and the like are the storage daemon's: libvirt refuses them here.
fn element(document: &Document<'_>, block: &Block, id: Id, target: &str) -> Result<String, Error> {
    let layout = Layout::of(document, id);
    let model = document.attribute(id, "model")?;
    let model = model.map(|m| format!(" model='{}'", quoted(&m)));
    // Said always: QEMU would take one queue per processor, and fail on a daemon that serves fewer.
    let queues = block.queues;
    let source = layout.inner().element(
        &format!("<source type='unix' path='{}'>", quoted(&block.path)),
        &[format!("<reconnect enabled='yes' timeout='{RECONNECT}'/>")],
        "source",
    );
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
