//! The guest's memory, which a vhost-user back end has to map.

use super::Error;
use super::layout::{Layout, append};
use super::tree::{Document, Edit, Id, apply};

/// The domain with its memory shared. Huge pages stay what they are.
pub(super) fn share(text: &str) -> Result<String, Error> {
    let text = backing(text)?;
    let document = Document::parse(&text)?;
    let mut edits = Vec::new();
    // A NUMA cell and a memory device may each say otherwise than the whole.
    for (id, attribute) in single(&document)? {
        edits.extend(document.set(id, attribute, "shared")?);
    }
    Ok(apply(&text, edits))
}

fn backing(text: &str) -> Result<String, Error> {
    let document = Document::parse(text)?;
    document.devices()?;
    let Some(backing) = document.child(document.root(), "memoryBacking") else {
        let edit = insert(&document);
        return Ok(apply(text, vec![edit]));
    };
    let mut edits = Vec::new();
    let mut missing = Vec::new();
    match document.child(backing, "source") {
        // Anonymous memory can't be mapped by another process; a file can.
        Some(source) => {
            let kind = document.attribute(source, "type")?;
            if !matches!(kind.as_deref(), Some("memfd" | "file")) {
                edits.extend(document.set(source, "type", "memfd")?);
            }
        }
        // Huge pages are mapped from their file system, and a VM may have asked for that (kubevirt.io/memfd: "false").
        None if document.child(backing, "hugepages").is_some() => {}
        None => missing.push("<source type='memfd'/>"),
    }
    match document.child(backing, "access") {
        Some(access) => edits.extend(document.set(access, "mode", "shared")?),
        None => missing.push("<access mode='shared'/>"),
    }
    if !missing.is_empty() {
        edits.push(append(&document, backing, |layout| {
            missing.join(&layout.between())
        }));
    }
    Ok(apply(text, edits))
}

/// After what the domain says of its memory, in a place of its own otherwise: libvirt takes any order.
fn insert(document: &Document<'_>) -> Edit {
    let make = |layout: &Layout| {
        let children = ["<source type='memfd'/>", "<access mode='shared'/>"].map(String::from);
        layout.element("<memoryBacking>", &children, "memoryBacking")
    };
    let sizes = ["memory", "currentMemory", "maxMemory"];
    let all = document.elements(document.root());
    let last = all.filter(|id| document.is(*id, &sizes)).last();
    let Some(last) = last else {
        return append(document, document.root(), make);
    };
    let layout = Layout::of(document, last);
    layout.after(document, last, &make(&layout))
}

/// Parts of the memory that have an access mode of their own, and the attribute that says it.
fn single(document: &Document<'_>) -> Result<Vec<(Id, &'static str)>, Error> {
    let mut parts = Vec::new();
    let cpu = document.child(document.root(), "cpu");
    if let Some(numa) = cpu.and_then(|cpu| document.child(cpu, "numa")) {
        parts.extend(document.named(numa, "cell").map(|cell| (cell, "memAccess")));
    }
    for device in document.named(document.devices()?, "memory") {
        // Without one, the device is as the whole.
        if document.attribute(device, "access")?.is_some() {
            parts.push((device, "access"));
        }
    }
    Ok(parts)
}
