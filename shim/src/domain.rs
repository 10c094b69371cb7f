//! The rewriting of a domain XML, as text: what is not ours stays byte for byte.
//!
//! KubeVirt calls a hook more than once, with the hook's own answer in between passed through a Go struct that knows no vhost-user
//! socket. So each thing of ours is found by its alias (`ua-<name>`) and written anew as a whole, wherever it comes from; done twice, nothing
//! changes. Not a tree that is printed again, but byte ranges that are replaced: libvirt gets every element that KubeVirt or another
//! sidecar put there, also those that neither this shim nor KubeVirt's struct knows.

mod disk;
mod interface;
mod layout;
mod memory;
mod mtu;
mod property;
mod tree;

pub use disk::Block;

use crate::resolver::{Nic, Plug};
use crate::vmi::Vmi;

/// Why a domain can't be rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not XML.
    #[error(
        "the domain XML is not well formed at byte {at}: {fault}; whoever was called before this sidecar may have spoilt it"
    )]
    Malformed {
        /// Where, in bytes.
        at: usize,
        /// What.
        fault: String,
    },
    /// XML of something else.
    #[error("the XML is no libvirt domain: {fault}")]
    NotADomain {
        /// What is missing.
        fault: &'static str,
    },
    /// A disk that can't be vhost-user-blk.
    #[error("volume {volume} can't be a vhost-user-blk disk: {fault}")]
    Disk {
        /// The volume.
        volume: String,
        /// Why, and what to do.
        fault: &'static str,
    },
}

/// The domain XML with the interfaces `nics` plugged as they say, the volumes `blocks` as vhost-user-blk disks, and, if anything of
/// that is vhost-user, with the guest's memory shared: without it the VM starts, boots, and loses every packet.
///
/// # Errors
///
/// Every [`Error`]; the XML is whole or not at all rewritten.
pub fn rewrite(xml: &str, vmi: &Vmi, nics: &[Nic], blocks: &[Block]) -> Result<String, Error> {
    let mut text = xml.to_owned();
    for nic in nics {
        text = interface::put(&text, vmi, nic)?;
        text = mtu::put(&text, nic)?;
    }
    for block in blocks {
        text = disk::put(&text, block)?;
    }
    let vhost_user = |nic: &Nic| matches!(nic.plug, Plug::VhostUser { .. });
    if !blocks.is_empty() || nics.iter().any(vhost_user) {
        text = memory::share(&text)?;
    } else {
        tree::Document::parse(&text)?.devices()?;
    }
    Ok(text)
}

/// The alias of a thing that the VM's author named: libvirt keeps such aliases as they are.
fn alias(name: &str) -> String {
    format!("ua-{name}")
}
