//! One network interface.

use super::layout::{Layout, append, quoted};
use super::tree::{Document, Edit, Id, apply};
use super::{Error, alias};
use crate::resolver::{Mode, Nic, Plug};
use crate::vmi::{Interface, Vmi, tap};

/// Children that are written anew; all others stay. `address` is among them only if the VM names one.
const OURS: [&str; 11] = [
    "mac", "source", "target", "model", "driver", "mtu", "alias", "acpi", "boot", "rom", "link",
];
/// What a poll-mode switch wants: QEMU's 256 overflow between two looks at the ring.
const RING: u32 = 1024;

/// The domain with this interface plugged.
pub(super) fn put(text: &str, vmi: &Vmi, nic: &Nic) -> Result<String, Error> {
    let document = Document::parse(text)?;
    let devices = document.devices()?;
    let mut interfaces = vmi.spec.domain.devices.interfaces.iter();
    let plain = Interface::default();
    let interface = interfaces.find(|i| i.name == nic.name).unwrap_or(&plain);
    let mut found = Vec::new();
    for id in document.named(devices, "interface") {
        if is_it(&document, id, &nic.name)? {
            found.push(id);
        }
    }
    let Some((first, others)) = found.split_first() else {
        let edit = insert(&document, devices, vmi, nic, interface)?;
        return Ok(apply(text, vec![edit]));
    };
    let layout = Layout::of(&document, *first);
    let attributes = kept_attributes(&document, text, *first)?;
    let kept = kept_children(&document, *first, interface);
    let element = element(&layout, vmi, nic, interface, &attributes, kept);
    let mut edits = vec![Edit {
        at: document.span(*first),
        with: element,
    }];
    for other in others {
        let blank = document.blank_before(*other).unwrap_or_default().len();
        let span = document.span(*other);
        edits.push(Edit {
            at: span.start - blank..span.end,
            with: String::new(),
        });
    }
    Ok(apply(text, edits))
}

/// By its alias; one without an alias, by the tap that bears the network's name.
fn is_it(document: &Document<'_>, id: Id, name: &str) -> Result<bool, Error> {
    Ok(match document.child_attribute(id, "alias", "name")? {
        Some(found) => found == alias(name),
        None => document.child_attribute(id, "target", "dev")? == Some(tap(name)),
    })
}

/// Where the VM's order has it: the guest numbers its cards by their places.
fn insert(
    document: &Document<'_>,
    devices: Id,
    vmi: &Vmi,
    nic: &Nic,
    interface: &Interface,
) -> Result<Edit, Error> {
    let new = |layout: &Layout| element(layout, vmi, nic, interface, "", Vec::new());
    let all = vmi.spec.domain.devices.interfaces.iter();
    let mut before = Vec::new();
    for earlier in all.take_while(|i| i.name != nic.name) {
        for id in document.named(devices, "interface") {
            if is_it(document, id, &earlier.name)? {
                before.push(id);
            }
        }
    }
    if let Some(last) = before.last() {
        let layout = Layout::of(document, *last);
        return Ok(layout.after(document, *last, &new(&layout)));
    }
    if let Some(first) = document.child(devices, "interface") {
        let layout = Layout::of(document, first);
        return Ok(layout.before(document, first, &new(&layout)));
    }
    Ok(append(document, devices, new))
}

fn element(
    layout: &Layout,
    vmi: &Vmi,
    nic: &Nic,
    interface: &Interface,
    attributes: &str,
    kept: Vec<String>,
) -> String {
    let kind = match nic.plug {
        Plug::VhostUser { .. } => "vhostuser",
        Plug::Tap => "ethernet",
    };
    let mut children = vec![format!("<mac address='{}'/>", nic.mac)];
    let queues = nic.queues.map(|n| format!(" queues='{n}'"));
    let name = quoted(&tap(&nic.name));
    match &nic.plug {
        Plug::VhostUser { path, mode } => {
            children.push(source(&layout.inner(), path, *mode));
            children.push(format!("<target dev='{name}'/>"));
            let queues = queues.unwrap_or_default();
            children.push(format!(
                "<driver{queues} rx_queue_size='{RING}' tx_queue_size='{RING}'/>"
            ));
        }
        Plug::Tap => {
            children.push(format!("<target dev='{name}' managed='no'/>"));
            // Not by name: libvirt takes vhost-net where the node has it, and else the machine boots without.
            children.extend(queues.map(|q| format!("<driver{q}/>")));
            children.extend(nic.mtu.map(|mtu| format!("<mtu size='{mtu}'/>")));
        }
    }
    children.push(format!("<model type='{}'/>", vmi.virtio_model()));
    if interface.state == "down" {
        children.push("<link state='down'/>".into());
    }
    match interface.boot_order {
        Some(order) => children.push(format!("<boot order='{order}'/>")),
        // As KubeVirt: no network boot from what is not in the order.
        None if vmi.spec.architecture != "s390x" => children.push("<rom enabled='no'/>".into()),
        None => {}
    }
    let acpi = interface.acpi_index.filter(|index| *index > 0);
    children.extend(acpi.map(|index| format!("<acpi index='{index}'/>")));
    children.push(format!("<alias name='{}'/>", quoted(&alias(&nic.name))));
    children.extend(address(&interface.pci_address));
    children.extend(kept);
    let start = format!("<interface type='{kind}'{attributes}>");
    layout.element(&start, &children, "interface")
}

fn source(layout: &Layout, path: &str, mode: Mode) -> String {
    let path = quoted(path);
    let word = mode.word();
    match mode {
        Mode::Server => format!("<source type='unix' path='{path}' mode='{word}'/>"),
        // The switch may restart.
        Mode::Client => layout.element(
            &format!("<source type='unix' path='{path}' mode='{word}'>"),
            &["<reconnect enabled='yes' timeout='1'/>".into()],
            "source",
        ),
    }
}

/// `0000:81:01.0` as libvirt writes it; none if the VM names none. KubeVirt has checked its form.
fn address(pci: &str) -> Option<String> {
    let (domain, rest) = pci.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (slot, function) = rest.split_once('.')?;
    let hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    [domain, bus, slot, function].into_iter().all(hex).then(|| {
        format!(
            "<address type='pci' domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>"
        )
    })
}

/// The start tag's attributes but `type`, as they are written.
fn kept_attributes(document: &Document<'_>, text: &str, id: Id) -> Result<String, Error> {
    let all = document.attributes(id)?.into_iter();
    let others = all.filter(|a| &text[a.name.clone()] != "type");
    // From the name to the closing quote.
    Ok(others
        .map(|a| format!(" {}", &text[a.name.start..=a.value.end]))
        .collect())
}

/// What stays of an interface that is there: what neither the VM nor the switch decides.
fn kept_children(document: &Document<'_>, id: Id, interface: &Interface) -> Vec<String> {
    let named = address(&interface.pci_address).is_some();
    let goes =
        |child: &Id| document.is(*child, &OURS) || (named && document.is(*child, &["address"]));
    let stays = document.content(id).filter(|child| !goes(child));
    // Blanks around a stray text would be more at each call.
    stays
        .map(|child| document.slice(child).trim().to_owned())
        .collect()
}
