//! The MTU that a vhost-user interface tells its guest.
//!
//! Not by `<mtu>`: libvirt then sets it on a link of the host with the name of `<target dev>`, which a vhost-user interface has not, and
//! the domain does not start (seen with libvirt 9.0). So QEMU's device is told itself, by libvirt's override of its properties, which
//! finds it by its alias.

use super::layout::{Layout, append, quoted};
use super::tree::{Document, Edit, Id, apply};
use super::{Error, alias};
use crate::resolver::{Nic, Plug};

const NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";
/// What a guest has without being told.
const DEFAULT: u32 = 1500;

/// The domain with the interface's MTU, where it needs to be said. Overrides of others stay.
pub(super) fn put(text: &str, nic: &Nic) -> Result<String, Error> {
    let mtu = nic.mtu.filter(|mtu| *mtu != DEFAULT);
    let Some(mtu) = mtu.filter(|_| matches!(nic.plug, Plug::VhostUser { .. })) else {
        return Ok(text.to_owned());
    };
    let document = Document::parse(text)?;
    let edits = edits(&document, &alias(&nic.name), mtu)?;
    Ok(apply(text, edits))
}

fn edits(document: &Document<'_>, name: &str, mtu: u32) -> Result<Vec<Edit>, Error> {
    let root = document.root();
    let Some(all) = document.child(root, "qemu:override") else {
        return Ok(vec![append(document, root, |layout| {
            let inner = layout.inner();
            // Declared here as well: not every writer of a domain declares the prefix.
            let start = format!("<qemu:override xmlns:qemu='{NAMESPACE}'>");
            layout.element(&start, &[device(&inner, name, mtu)], "qemu:override")
        })]);
    };
    let Some(ours) = find(document, all, "qemu:device", "alias", name)? else {
        let make = |layout: &Layout| device(layout, name, mtu);
        return Ok(vec![append(document, all, make)]);
    };
    let Some(frontend) = document.child(ours, "qemu:frontend") else {
        let make = |layout: &Layout| frontend(layout, mtu);
        return Ok(vec![append(document, ours, make)]);
    };
    let Some(property) = find(document, frontend, "qemu:property", "name", "host_mtu")? else {
        return Ok(vec![append(document, frontend, |_| self::property(mtu))]);
    };
    let kind = document.set(property, "type", "unsigned")?;
    let value = document.set(property, "value", &mtu.to_string())?;
    Ok(kind.into_iter().chain(value).collect())
}

fn find(
    document: &Document<'_>,
    parent: Id,
    element: &str,
    attribute: &str,
    value: &str,
) -> Result<Option<Id>, Error> {
    for id in document.named(parent, element) {
        if document.attribute(id, attribute)?.as_deref() == Some(value) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn device(layout: &Layout, name: &str, mtu: u32) -> String {
    let start = format!("<qemu:device alias='{}'>", quoted(name));
    let children = [frontend(&layout.inner(), mtu)];
    layout.element(&start, &children, "qemu:device")
}

fn frontend(layout: &Layout, mtu: u32) -> String {
    layout.element("<qemu:frontend>", &[property(mtu)], "qemu:frontend")
}

fn property(mtu: u32) -> String {
    format!("<qemu:property name='host_mtu' type='unsigned' value='{mtu}'/>")
}
