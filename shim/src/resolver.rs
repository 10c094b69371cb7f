//! Which socket, mode, MAC and MTU has each bound interface? Pure: over the VM and the contents of files.
//!
//! Asked in this order: KubeVirt's network-info ([`network_info`]), the pod's annotations ([`annotations`]), the metadata of a DRA claim
//! ([`dra`]), the pod's links ([`links`]), the computed path. The computed path counts only where nothing else was mounted: a file that is there
//! and does not name the network yet is waited for. One that names it without its device (Multus asks the CNI for that only where a device
//! plugin has given the pod one) leaves it to the links.

pub mod annotations;
pub mod dra;
mod error;
pub mod links;
pub mod network_info;

use std::collections::BTreeMap;

pub use error::{Error, Why};

use crate::annotation;
use crate::vmi::{Interface, Network, Vmi};

/// What `sun_path` holds, without its terminating zero, in octets.
pub const LONGEST_PATH: usize = 107;

/// Contents of the files. `None`: not mounted in this container. An empty text: mounted, and not written yet.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// KubeVirt's downward file, of a binding that is registered with `downwardAPI: device-info`.
    pub network_info: Option<String>,
    /// The pod's annotations as the downward API writes them.
    pub annotations: Option<String>,
    /// Metadata of the claims that the VM's networks name.
    pub dra: Vec<dra::File>,
    /// Links of the pod. None: sysfs can't be seen.
    pub links: Option<links::Links>,
    /// The directory of hook sockets as the container `compute` sees it: `/var/run/kubevirt-hooks`.
    pub hooks: String,
}

/// A bound interface, ready to be written into the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// The interface's name, which is its network's, too.
    pub name: String,
    /// Its name in the pod: `CNI_IFNAME`.
    pub ifname: String,
    /// How it is plugged on this node.
    pub plug: Plug,
    /// Six octets, lower case.
    pub mac: String,
    /// In octets; none: libvirt's default.
    pub mtu: Option<u32>,
    /// Pairs of queues; none: one, not said.
    pub queues: Option<u32>,
    /// Which source said so, for log lines.
    pub said_by: &'static str,
}

/// How an interface is plugged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plug {
    /// A vhost-user socket, as `compute` sees it.
    VhostUser {
        /// Absolute, at most 107 octets.
        path: String,
        /// Who makes the socket.
        mode: Mode,
    },
    /// A tap in the pod's namespace, made by the CNI on a node without DPDK.
    Tap,
}

/// Who makes the socket, seen from the VM (device-info-spec 1.1.0, 3.1.5.1; libvirt's `mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The host's switch does.
    Client,
    /// QEMU does: the switch may restart.
    Server,
}

impl Mode {
    /// libvirt's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What a source says of an interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// How it is plugged; none: the source names the interface and not its device.
    pub plug: Option<Plug>,
    /// As it is written there.
    pub mac: String,
    /// 0: not said.
    pub mtu: i64,
}

/// The interfaces of the binding, in the VM's order.
///
/// # Errors
///
/// The first interface that can't be; ask again after a while if [`Error::is_late`].
pub fn resolve(vmi: &Vmi, binding: &str, sources: &Sources) -> Result<Vec<Nic>, Error> {
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    let mut nics = Vec::new();
    for interface in vmi.bound(binding) {
        let error = |why| Error {
            vm: vmi.key(),
            interface: interface.name.clone(),
            why: Box::new(why),
        };
        let nic = one(vmi, interface, sources).map_err(error)?;
        if let Plug::VhostUser { path, .. } = &nic.plug
            && let Some(other) = owners.insert(path.clone(), nic.name.clone())
        {
            let path = path.clone();
            return Err(error(Why::SharedSocket { path, other }));
        }
        nics.push(nic);
    }
    Ok(nics)
}

fn one(vmi: &Vmi, interface: &Interface, sources: &Sources) -> Result<Nic, Why> {
    let network = vmi.network(&interface.name).ok_or(Why::NoNetwork)?;
    if vmi.spec.domain.launch_security.is_some() {
        return Err(Why::Encrypted);
    }
    if !["", "virtio"].contains(&interface.model.as_str()) {
        let model = interface.model.clone();
        return Err(Why::NotVirtio { model });
    }
    let ifname = vmi.pod_interface(network);
    let (device, said_by) = device(vmi, network, &ifname, sources)?;
    let plug = device.plug.ok_or_else(|| Why::NoDeviceInfo {
        network: network.name.clone(),
    })?;
    if let Plug::VhostUser { path, .. } = &plug {
        check_path(path)?;
    }
    check_migration(vmi, &plug)?;
    let queues = match (&plug, &sources.links) {
        (Plug::Tap, Some(links)) => links.queues(network, vmi.nic_queues()),
        _ => vmi.nic_queues(),
    };
    Ok(Nic {
        name: interface.name.clone(),
        mac: mac(vmi, interface, &device.mac)?,
        mtu: mtu(device.mtu)?,
        queues,
        ifname,
        plug,
        said_by,
    })
}

/// The first source that knows.
fn device(
    vmi: &Vmi,
    network: &Network,
    ifname: &str,
    sources: &Sources,
) -> Result<(Device, &'static str), Why> {
    let mut waited_for = None;
    let mut named = None;
    if let Some(text) = &sources.network_info {
        match network_info::find(text, &network.name)? {
            Some(device) if device.plug.is_some() => return Ok((device, network_info::FILE)),
            Some(device) => named = Some(device),
            None => waited_for = Some(network_info::FILE),
        }
    }
    if let Some(text) = &sources.annotations {
        match annotations::find(text, network, ifname)? {
            Some(device) if device.plug.is_some() => return Ok((device, annotations::FILE)),
            Some(_) => {}
            None => waited_for = waited_for.or(Some(annotations::FILE)),
        }
    }
    if let Some(claim) = &network.resource_claim {
        match dra::find(&sources.dra, claim)? {
            Some(device) => return Ok((device, dra::FILE)),
            None => waited_for = waited_for.or(Some(dra::FILE)),
        }
    }
    let links = sources.links.as_ref().filter(|_| network.is_secondary());
    if let Some(tap) = links.and_then(|links| links.device(network)) {
        return Ok((tap, links::SAID_BY));
    }
    if let Some(device) = named {
        let path = computed(&sources.hooks, ifname);
        let mode = Mode::Server;
        let socket = links.is_some_and(|links| !links.has(ifname));
        let plug = socket.then_some(Plug::VhostUser { path, mode });
        return Ok((Device { plug, ..device }, network_info::FILE));
    }
    if !network.is_secondary() && network.resource_claim.is_none() {
        let mounted = waited_for.is_some();
        return Err(Why::PodNetwork { mounted });
    }
    if let Some(file) = waited_for {
        let (network, ifname) = (network.name.clone(), ifname.to_owned());
        return Err(Why::Late {
            file,
            network,
            ifname,
        });
    }
    let path = computed(&sources.hooks, ifname);
    let mode = Mode::Server;
    let known = vmi
        .status
        .interfaces
        .iter()
        .find(|i| i.name == network.name);
    Ok((
        Device {
            plug: Some(Plug::VhostUser { path, mode }),
            mac: known.map(|i| i.mac.clone()).unwrap_or_default(),
            mtu: 0,
        },
        "its computed path",
    ))
}

/// Where the CNI lets QEMU make the socket of a pod's interface, as `compute` sees it: two directories deep, for virt-launcher takes
/// every file one directory deep for a hook socket; the same on every node, for a migrating VM takes it along.
#[must_use]
pub fn computed(hooks: &str, ifname: &str) -> String {
    format!("{hooks}/outboard/net/{ifname}.sock")
}

fn check_path(path: &str) -> Result<(), Why> {
    let fault = if path.len() > LONGEST_PATH {
        "is too long"
    } else if !path.starts_with('/') || path.ends_with('/') {
        "is not absolute"
    } else if path.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "has characters that no path should have"
    } else if path.split('/').any(|part| part == ".." || part == ".") {
        "leaves its directory"
    } else {
        return Ok(());
    };
    let path = path.to_owned();
    Err(Why::BadPath { path, fault })
}

/// The VM's, which must be the port's.
fn mac(vmi: &Vmi, interface: &Interface, pod: &str) -> Result<String, Why> {
    let read = |text: &str, at| {
        let bad = || Why::BadMac {
            mac: text.to_owned(),
            at,
        };
        (!text.is_empty())
            .then(|| plain_mac(text).ok_or_else(bad))
            .transpose()
    };
    let asked = read(&interface.mac_address, "the VM")?;
    let given = read(pod, "the CNI's result")?;
    match (asked, given) {
        (Some(vm), Some(pod)) if vm != pod => Err(Why::OtherMac { vm, pod }),
        (Some(mac), _) | (None, Some(mac)) => Ok(mac),
        (None, None) => {
            let status = vmi.status.interfaces.iter();
            let known = status.filter(|i| i.name == interface.name).map(|i| &i.mac);
            let known = known.filter_map(|mac| plain_mac(mac)).next();
            known.ok_or(Why::NoMac)
        }
    }
}

/// In lower case with colons; none unless it is the address of one interface.
fn plain_mac(text: &str) -> Option<String> {
    let octets: Vec<u8> = text
        .split([':', '-'])
        .map(|part| {
            (part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| u8::from_str_radix(part, 16).ok())
        })
        .map(Option::flatten)
        .collect::<Option<_>>()?;
    let [first, rest @ ..] = octets.as_slice() else {
        return None;
    };
    // A set group bit names many; all zero names none.
    let one = rest.len() == 5 && first & 1 == 0 && octets.iter().any(|o| *o != 0);
    let words: Vec<_> = octets.iter().map(|o| format!("{o:02x}")).collect();
    one.then(|| words.join(":"))
}

fn mtu(mtu: i64) -> Result<Option<u32>, Why> {
    match mtu {
        0 => Ok(None),
        68..=65535 => Ok(u32::try_from(mtu).ok()),
        _ => Err(Why::BadMtu { mtu }),
    }
}

/// A migrating VM takes its source's XML along, which this call can't change: what would not fit has to fail here, with a reason.
fn check_migration(vmi: &Vmi, plug: &Plug) -> Result<(), Why> {
    let Some(migration) = vmi.migration() else {
        return Ok(());
    };
    let here = match plug {
        Plug::VhostUser { .. } => "vhost-user",
        Plug::Tap => "tap",
    };
    let there = vmi.annotation(annotation::KIND).unwrap_or("vhost-user");
    if here == there {
        return Ok(());
    }
    Err(Why::OtherKind {
        from: migration.source_node.clone(),
        to: migration.target_node.clone(),
        here,
        there: there.to_owned(),
    })
}
