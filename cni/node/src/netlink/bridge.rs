//! A bridge that is a wire between its two links: what one says, the other hears, unchanged and unremembered.

use std::fmt;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::link::{
    BridgeStpState, InfoBridge, InfoData, InfoKind, LinkAttribute, LinkInfo, LinkMessage,
};

/// Link-local groups that a bridge may pass on at all: not those of spanning tree, of pause frames and of aggregation.
const GROUPS: u16 = 0xfff8;

/// One change of a bridge, or of a link that it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wire {
    /// Creates a bridge, down; refused when a link of that name exists.
    Add {
        /// The bridge's name.
        name: String,
        /// Bytes.
        mtu: u32,
    },
    /// Makes a link one of a bridge's.
    Join {
        /// The link's index.
        link: u32,
        /// The bridge's index.
        bridge: u32,
    },
    /// Writes what anybody in the namespace can read of a link in sysfs.
    Alias {
        /// The link's index.
        link: u32,
        /// At most 255 bytes.
        alias: String,
    },
}

impl Wire {
    /// The request and its flags.
    pub(super) fn message(&self) -> (Message, u16) {
        let mut link = LinkMessage::default();
        match self {
            Self::Add { name, mtu } => {
                let wire = vec![
                    InfoBridge::StpState(BridgeStpState::Disabled),
                    // With two links nothing is to be learnt, and a machine that moves away and back is heard at once.
                    InfoBridge::AgeingTime(0),
                    InfoBridge::GroupFwdMask(GROUPS),
                    InfoBridge::MulticastSnooping(false),
                ];
                link.attributes = vec![
                    LinkAttribute::IfName(name.clone()),
                    LinkAttribute::Mtu(*mtu),
                    LinkAttribute::LinkInfo(vec![
                        LinkInfo::Kind(InfoKind::Bridge),
                        LinkInfo::Data(InfoData::Bridge(wire)),
                    ]),
                ];
                (Message::NewLink(link), NLM_F_CREATE | NLM_F_EXCL)
            }
            Self::Join {
                link: index,
                bridge,
            } => {
                link.header.index = *index;
                link.attributes = vec![LinkAttribute::Controller(*bridge)];
                (Message::SetLink(link), 0)
            }
            Self::Alias { link: index, alias } => {
                link.header.index = *index;
                link.attributes = vec![LinkAttribute::IfAlias(alias.clone())];
                (Message::SetLink(link), 0)
            }
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { name, .. } => write!(f, "create bridge {name}"),
            Self::Join { link, bridge } => write!(f, "add link {link} to bridge {bridge}"),
            Self::Alias { link, .. } => write!(f, "write the alias of link {link}"),
        }
    }
}
