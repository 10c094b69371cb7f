//! An attachment: one interface of one sandbox, its names, and what is remembered of it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use api::Mac;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dpu::representor::{CardFunction, Plug};
use crate::vhostuser::{Socket, Tap};

const PREFIX: &str = "ob";
const DIGITS: usize = 13;

/// The key of an attachment: containerID and ifname (CNI specification, section "ADD").
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct AttachmentId {
    /// CNI_CONTAINERID: the sandbox.
    pub(crate) container: String,
    /// CNI_IFNAME: the interface's name in the sandbox.
    pub(crate) ifname: String,
}

impl AttachmentId {
    /// An attachment of a host behind this DPU. No container ID has a slash: no host can name an attachment of this node's own pods,
    /// nor one of another host.
    pub(crate) fn of_host(host: &str, sandbox: &str, ifname: &str) -> Self {
        Self {
            container: format!("{host}/{sandbox}"),
            ifname: ifname.to_owned(),
        }
    }

    /// Name of the link on the host, and of its OVS port: found again without any record.
    pub(crate) fn host_link(&self) -> String {
        format!("{PREFIX}{}", self.digest(DIGITS))
    }

    /// Name of its record in the journal.
    pub(crate) fn key(&self) -> String {
        self.digest(32)
    }

    fn digest(&self, digits: usize) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.container);
        hash.update([0]);
        hash.update(&self.ifname);
        let mut text: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        text.truncate(digits);
        text
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of sandbox {}", self.ifname, self.container)
    }
}

/// Whether a link of this name is one of ours (`ob0`, the node's own, is not such a link).
pub(crate) fn is_host_link(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| {
        rest.len() == DIGITS && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The pod that an attachment belongs to, as CNI_ARGS names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl fmt::Display for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What the journal keeps of an attachment that is whole; enough to remove it and to plug its port again.
///
/// An ADD or a DEL that was cut off needs no record: its link and its port are known as ours by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: AttachmentId,
    /// Name of the CNI network: GC is asked per network.
    pub(crate) network: String,
    pub(crate) pod: Pod,
    pub(crate) netns: PathBuf,
    pub(crate) port: PortRecord,
    /// Counts the attachments of this node's journal: of two with one iface-id the higher one holds the port. Of a host's
    /// attachment it is the host's attempt.
    pub(crate) ordinal: u64,
    /// Where the port leads; a veth pair in the record of an earlier version.
    #[serde(default)]
    pub(crate) end: End,
}

impl Record {
    /// Name of the OVS port, and of its link where it has one.
    pub(crate) fn link(&self) -> String {
        match &self.end {
            End::Veth | End::VhostUser(_) | End::Tap(_) => self.id.host_link(),
            End::Representor(far) => far.link.clone(),
        }
    }

    /// The function of a host that the port leads to.
    pub(crate) fn far(&self) -> Option<&Far> {
        match &self.end {
            End::Veth | End::VhostUser(_) | End::Tap(_) => None,
            End::Representor(far) => Some(far),
        }
    }

    /// The vhost-user socket that the port is connected to.
    pub(crate) fn socket(&self) -> Option<&Socket> {
        match &self.end {
            End::VhostUser(socket) => Some(socket),
            End::Veth | End::Representor(_) | End::Tap(_) => None,
        }
    }

    /// The tap that a machine has instead of a socket.
    pub(crate) fn tap(&self) -> Option<&Tap> {
        match &self.end {
            End::Tap(tap) => Some(tap),
            End::Veth | End::Representor(_) | End::VhostUser(_) => None,
        }
    }
}

/// Where an attachment's port leads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum End {
    /// Through a veth pair into a namespace of this node; it dies with the namespace.
    #[default]
    Veth,
    /// Through a representor to a function of a host; it lives until the host says otherwise.
    Representor(Far),
    /// To a socket that the pod serves; it lives as long as the namespace of its sandbox, in which it has no link.
    VhostUser(Socket),
    /// Through a veth pair to a tap in the sandbox's namespace, in place of a socket; it dies with the namespace.
    Tap(Tap),
}

impl End {
    /// How a virtual machine has it, in the word of a device information's type; none: no machine can have it.
    pub(crate) fn machine_kind(&self) -> Option<&'static str> {
        match self {
            Self::VhostUser(_) => Some("vhost-user"),
            Self::Tap(_) => Some("tap"),
            Self::Veth | Self::Representor(_) => None,
        }
    }
}

/// A function of a host, as its attachment holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Far {
    /// Name of the representor.
    pub(crate) link: String,
    /// How it is plugged.
    #[serde(default)]
    pub(crate) plug: Plug,
    /// The Kubernetes node.
    pub(crate) host: String,
    /// Its function.
    pub(crate) function: CardFunction,
    /// Of the host: the higher one is the younger.
    pub(crate) attempt: u64,
    /// The representor's MTU, bytes.
    pub(crate) mtu: u32,
}

/// What OVS is told of an attachment, and what the interface was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortRecord {
    /// Name of the logical switch port.
    pub(crate) iface_id: String,
    /// The interface's MAC address, in text.
    pub(crate) mac: String,
    /// Its addresses, IPv4 first; none in the record of an earlier version.
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
}

impl PortRecord {
    pub(crate) fn new(iface_id: impl Into<String>, mac: Mac, ips: &[IpNet]) -> Self {
        Self {
            iface_id: iface_id.into(),
            mac: mac.to_string(),
            ips: ips.iter().map(IpNet::addr).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str, ifname: &str) -> AttachmentId {
        AttachmentId {
            container: container.to_owned(),
            ifname: ifname.to_owned(),
        }
    }

    #[test]
    fn a_host_link_fits_the_kernel_and_is_known_as_ours() {
        let name = id("c1", "eth0").host_link();
        assert_eq!(name.len(), 15);
        assert!(is_host_link(&name));
        assert!(!is_host_link("ob0") && !is_host_link("ob0123456789abX") && !is_host_link("eth0"));
    }

    #[test]
    fn a_record_of_an_earlier_release_has_a_veth_pair() {
        let text = r#"{"id":{"container":"c1","ifname":"eth0"},"network":"pods","pod":{"namespace":"default","name":"web","uid":"u1"},
            "netns":"/run/netns/a","port":{"iface_id":"p1","mac":"0a:58:0a:f4:00:05"},"ordinal":3}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!(record.end, End::Veth);
        assert_eq!(record.link(), id("c1", "eth0").host_link());
    }

    #[test]
    fn a_record_of_a_host_is_read_as_it_was_written() {
        let far = Far {
            link: "pf0vf3".into(),
            plug: Plug::Dpdk {
                devargs: "0000:01:00.0,representor=[3]".into(),
            },
            host: "h1".into(),
            function: CardFunction {
                physical: 0,
                vf: Some(3),
            },
            attempt: 7,
            mtu: 1442,
        };
        let record = Record {
            id: AttachmentId::of_host("h1", "c1", "eth0"),
            network: String::new(),
            pod: Pod {
                namespace: "default".into(),
                name: "web".into(),
                uid: "u1".into(),
            },
            netns: PathBuf::new(),
            port: PortRecord {
                iface_id: "p1".into(),
                mac: String::new(),
                ips: Vec::new(),
            },
            ordinal: 7,
            end: End::Representor(far),
        };
        assert_eq!(record.link(), "pf0vf3");
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        assert_ne!(record.id.host_link(), id("c1", "eth0").host_link());
    }

    #[test]
    fn container_and_ifname_do_not_run_into_each_other() {
        assert_ne!(id("c", "1eth0").host_link(), id("c1", "eth0").host_link());
    }
}
