//! A property of a device of QEMU's for which libvirt has no element: libvirt's override, which finds the device by its alias.

use super::layout::{Layout, append, quoted};
use super::tree::{Document, Edit, Id, apply};
use super::{Error, alias};

const NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// A property, with libvirt's word for its type.
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) value: String,
}

/// The domain with a property of the device that the VM's author named so. Overrides of others stay.
pub(super) fn put(text: &str, device: &str, property: &Property) -> Result<String, Error> {
    let document = Document::parse(text)?;
    let edits = edits(&document, &alias(device), property)?;
    Ok(apply(text, edits))
}

fn edits(document: &Document<'_>, name: &str, said: &Property) -> Result<Vec<Edit>, Error> {
    let root = document.root();
    let Some(all) = document.child(root, "qemu:override") else {
        return Ok(vec![append(document, root, |layout| {
            let inner = layout.inner();
            // Declared here as well: not every writer of a domain declares the prefix.
            let start = format!("<qemu:override xmlns:qemu='{NAMESPACE}'>");
            layout.element(&start, &[device(&inner, name, said)], "qemu:override")
        })]);
    };
    let Some(ours) = find(document, all, "qemu:device", "alias", name)? else {
        let make = |layout: &Layout| device(layout, name, said);
        return Ok(vec![append(document, all, make)]);
    };
    let Some(frontend) = document.child(ours, "qemu:frontend") else {
        let make = |layout: &Layout| frontend(layout, said);
        return Ok(vec![append(document, ours, make)]);
    };
    let Some(property) = find(document, frontend, "qemu:property", "name", said.name)? else {
        return Ok(vec![append(document, frontend, |_| element(said))]);
    };
    let kind = document.set(property, "type", said.kind)?;
    let value = document.set(property, "value", &said.value)?;
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

fn device(layout: &Layout, name: &str, said: &Property) -> String {
    let start = format!("<qemu:device alias='{}'>", quoted(name));
    let children = [frontend(&layout.inner(), said)];
    layout.element(&start, &children, "qemu:device")
}

fn frontend(layout: &Layout, said: &Property) -> String {
    layout.element("<qemu:frontend>", &[element(said)], "qemu:frontend")
}

fn element(said: &Property) -> String {
    let Property { name, kind, value } = said;
    format!("<qemu:property name='{name}' type='{kind}' value='{value}'/>")
}
