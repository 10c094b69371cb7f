//! What is left of a domain XML after KubeVirt read it into its Go struct `api.DomainSpec` and printed it again.
//!
//! The struct has no field for much of what libvirt knows: of an interface's source not its path and type, of its driver not the ring
//! sizes, of a disk's source not type, path and reconnect. The table below lists what the struct has, in its order; elements without
//! a line are kept whole, for no test here looks into them.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use quick_xml::Reader;
use quick_xml::events::Event;

/// Path, attributes (with `!`: always written), children in the struct's order (with `!`: always written).
const KNOWN: &[(&str, &str, &str)] = &[
    (
        "domain",
        "type xmlns:qemu",
        "name uuid memory currentMemory maxMemory memoryBacking os sysinfo devices clock resource qemu:commandline metadata features cpu vcpu vcpus cputune numatune iothreads launchSecurity on_reboot iommufd",
    ),
    (
        "domain/memoryBacking",
        "",
        "hugepages source access allocation nosharepages",
    ),
    ("domain/memoryBacking/source", "type!", ""),
    ("domain/memoryBacking/access", "mode!", ""),
    ("domain/cpu", "mode", "model feature topology numa"),
    ("domain/cpu/numa", "", "cell"),
    (
        "domain/cpu/numa/cell",
        "id! cpus memory unit memAccess",
        "distances",
    ),
    (
        "domain/devices",
        "",
        "emulator interface channel hostdev panic controller video graphics memballoon disk input serial console watchdog rng filesystem redirdev sound tpm vsock memory iommu",
    ),
    (
        "domain/devices/interface",
        "type! trustGuestRxFilters",
        "address source! target model mac mtu bandwidth boot link filterref alias driver rom acpi backend portForward",
    ),
    (
        "domain/devices/interface/source",
        "network dev bridge mode",
        "address",
    ),
    ("domain/devices/interface/target", "dev! managed", ""),
    ("domain/devices/interface/model", "type!", ""),
    ("domain/devices/interface/mac", "address!", ""),
    ("domain/devices/interface/mtu", "size!", ""),
    ("domain/devices/interface/bandwidth", "", ""),
    ("domain/devices/interface/driver", "name! queues iommu", ""),
    (
        "domain/devices/disk",
        "device! snapshot type! model",
        "source! target! serial driver readonly auth alias backingStore boot address blockio filesystemOverhead capacity shareable",
    ),
    (
        "domain/devices/disk/source",
        "dev file startupPolicy protocol name",
        "host reservations slices dataStore",
    ),
    ("domain/devices/disk/target", "bus dev tray", ""),
    (
        "domain/devices/disk/driver",
        "cache error_policy io name! type! iothread queues discard iommu",
        "iothreads",
    ),
];

struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    children: Vec<Element>,
    text: String,
}

/// The XML after the round trip: tabs, no empty tags, no comments.
///
/// # Panics
///
/// It is not well formed.
pub fn round_trip(xml: &str) -> String {
    let mut printed = String::new();
    print(&parse(xml), "", 0, &mut printed);
    printed
}

fn parse(xml: &str) -> Element {
    let mut reader = Reader::from_str(xml);
    let mut open = vec![element("")];
    loop {
        match reader.read_event().expect("well formed") {
            Event::Start(tag) => open.push(start(&tag)),
            Event::Empty(tag) => open.last_mut().expect("open").children.push(start(&tag)),
            Event::End(_) => {
                let done = open.pop().expect("open");
                open.last_mut().expect("open").children.push(done);
            }
            Event::Text(text) => open.last_mut().expect("open").text.push_str(&text),
            Event::GeneralRef(entity) => {
                let text = format!("&{};", &*entity);
                open.last_mut().expect("open").text.push_str(&text);
            }
            Event::Eof => break,
            _ => {}
        }
    }
    open.remove(0).children.remove(0)
}

fn element(name: &str) -> Element {
    Element {
        name: name.into(),
        attributes: Vec::new(),
        children: Vec::new(),
        text: String::new(),
    }
}

fn start(tag: &quick_xml::events::BytesStart<'_>) -> Element {
    let mut made = element(tag.name().as_ref());
    for attribute in tag.attributes() {
        let attribute = attribute.expect("an attribute");
        let key = attribute.key.as_ref().to_owned();
        made.attributes.push((key, attribute.value.to_string()));
    }
    made
}

fn print(element: &Element, parent: &str, depth: usize, to: &mut String) {
    let path = match parent {
        "" => element.name.clone(),
        parent => format!("{parent}/{}", element.name),
    };
    let known = KNOWN.iter().find(|(of, ..)| *of == path);
    to.push_str(&format!("{}<{}", "\t".repeat(depth), element.name));
    for (name, value) in attributes(element, known.map(|k| k.1)) {
        // Go escapes what needs it, and writes double quotes.
        let value = value.replace("&apos;", "&#39;").replace('"', "&#34;");
        to.push_str(&format!(" {name}=\"{value}\""));
    }
    to.push('>');
    let children = children(element, known.map(|k| k.2));
    if children.is_empty() && !element.text.trim().is_empty() {
        to.push_str(&element.text);
    }
    for child in &children {
        to.push('\n');
        print(child, &path, depth + 1, to);
    }
    if !children.is_empty() {
        to.push_str(&format!("\n{}", "\t".repeat(depth)));
    }
    to.push_str(&format!("</{}>", element.name));
}

fn attributes(element: &Element, known: Option<&str>) -> Vec<(String, String)> {
    let Some(known) = known else {
        return element.attributes.clone();
    };
    let words = known.split_whitespace();
    let of = |word: &str| {
        let name = word.trim_end_matches('!');
        let found = element.attributes.iter().find(|(n, _)| n == name);
        let empty = || {
            word.ends_with('!')
                .then(|| (name.to_owned(), String::new()))
        };
        found.cloned().or_else(empty)
    };
    words.filter_map(of).collect()
}

fn children<'a>(of: &'a Element, known: Option<&str>) -> Vec<std::borrow::Cow<'a, Element>> {
    let Some(known) = known else {
        return of.children.iter().map(std::borrow::Cow::Borrowed).collect();
    };
    let mut kept = Vec::new();
    for word in known.split_whitespace() {
        let name = word.trim_end_matches('!');
        let before = kept.len();
        let all = of.children.iter().filter(|c| c.name == name);
        kept.extend(all.map(std::borrow::Cow::Borrowed));
        if kept.len() == before && word.ends_with('!') {
            kept.push(std::borrow::Cow::Owned(element(name)));
        }
    }
    kept
}

impl Clone for Element {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            attributes: self.attributes.clone(),
            children: self.children.clone(),
            text: self.text.clone(),
        }
    }
}
