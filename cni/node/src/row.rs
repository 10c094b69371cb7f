//! Which southbound row an ADD is about, and what to say when there is none. Pure.
//!
//! Only external_ids are believed ([`api::PortFacts`]): any chassis may write the rest of a row (design, §2.1). A DPU's chassis has
//! rows of its own pods and rows of its host's: who asks for the one never sees the other.
//!
//! While a virtual machine migrates its row is that of two pods: its own, and the one that the machine is coming to
//! ([`api::MigrationTarget`]). Both find it. Machines behind a DPU do not migrate.

use std::collections::BTreeMap;

use api::{FactError, PortFacts, TAG_HOST, TAG_IFNAME, TAG_POD, TAG_ROLE, TAG_TARGET_UID, TAG_UID};
use cni_bin::code;

use crate::attachment::Pod;
use crate::error::Error;

/// The row of an ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Name of the logical port: the interface's iface-id.
    pub(crate) logical_port: String,
    /// What cni-controller says about it.
    pub(crate) facts: PortFacts,
}

/// What an ADD looks for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) ifname: &'a str,
    /// The subnet that the network's configuration names; none = whatever the pod was given.
    pub(crate) subnet: Option<&'a str>,
    /// The host behind this DPU that asks; none = this node itself.
    pub(crate) host: Option<&'a str>,
}

/// Why there is no row to work with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nothing about this pod.
    NoRow,
    /// Only about an earlier pod of the same name.
    EarlierPod { uid: String },
    /// The pod has rows, but none for this interface.
    NoInterface { have: Vec<String> },
    /// The row belongs to another subnet than the configuration names.
    OtherSubnet {
        logical_port: String,
        subnet: String,
    },
    /// The row cannot be read.
    Unreadable {
        logical_port: String,
        why: FactError,
    },
}

/// A row as the southbound database has it: logical_port and external_ids.
pub(crate) type Candidate<'a> = (&'a str, &'a BTreeMap<String, String>);

impl Wanted<'_> {
    /// Whether a row with these tags may have to do with it.
    pub(crate) fn may_be<'t>(&self, tag: impl Fn(&str) -> Option<&'t str>) -> bool {
        let of_this_side = tag(TAG_HOST) == self.host;
        of_this_side && (self.is_of(&tag) || tag(TAG_POD) == Some(&self.pod.to_string()))
    }

    /// Whether it is the pod's, or that of a machine which is migrating to it.
    fn is_of<'t>(&self, tag: impl Fn(&str) -> Option<&'t str>) -> bool {
        let uid = Some(self.pod.uid.as_str());
        tag(TAG_UID) == uid || (self.host.is_none() && tag(TAG_TARGET_UID) == uid)
    }
}

/// Looks for the row of exactly this pod (by UID) and interface.
pub(crate) fn find<'a>(
    rows: impl IntoIterator<Item = Candidate<'a>>,
    wanted: &Wanted<'_>,
) -> Result<Row, Missing> {
    let (mut have, mut earlier) = (Vec::new(), None);
    for (logical_port, ids) in rows {
        let tag = |key: &str| ids.get(key).map(String::as_str);
        if !wanted.may_be(tag) {
            continue;
        }
        if !wanted.is_of(tag) {
            earlier = tag(TAG_UID).map(str::to_owned);
            continue;
        }
        if tag(TAG_IFNAME) != Some(wanted.ifname) {
            have.extend(tag(TAG_IFNAME).map(str::to_owned));
            continue;
        }
        return judge(logical_port, ids, wanted);
    }
    have.sort();
    Err(match (have.is_empty(), earlier) {
        (false, _) => Missing::NoInterface { have },
        (true, Some(uid)) => Missing::EarlierPod { uid },
        (true, None) => Missing::NoRow,
    })
}

/// Looks for the row of a host's own interface.
pub(crate) fn find_host<'a>(
    rows: impl IntoIterator<Item = Candidate<'a>>,
    host: &str,
) -> Option<Result<Row, FactError>> {
    let of_host = |ids: &BTreeMap<String, String>| {
        let is = |key: &str, value: &str| ids.get(key).is_some_and(|found| found == value);
        is(TAG_HOST, host) && is(TAG_ROLE, "node")
    };
    let (logical_port, ids) = rows.into_iter().find(|(_, ids)| of_host(ids))?;
    Some(PortFacts::decode(ids).map(|facts| Row {
        logical_port: logical_port.to_owned(),
        facts,
    }))
}

fn judge(
    logical_port: &str,
    ids: &BTreeMap<String, String>,
    wanted: &Wanted<'_>,
) -> Result<Row, Missing> {
    let logical_port = logical_port.to_owned();
    let facts = match PortFacts::decode(ids) {
        Ok(facts) => facts,
        Err(why) => return Err(Missing::Unreadable { logical_port, why }),
    };
    if wanted.subnet.is_some_and(|subnet| subnet != facts.subnet) {
        return Err(Missing::OtherSubnet {
            logical_port,
            subnet: facts.subnet,
        });
    }
    Ok(Row {
        logical_port,
        facts,
    })
}

impl Missing {
    /// Whether waiting may help: cni-controller may yet write or correct the row.
    pub(crate) fn may_come(&self) -> bool {
        !matches!(self, Self::OtherSubnet { .. })
    }

    /// The error of an ADD that has waited long enough, with a connected southbound database.
    pub(crate) fn error(&self, wanted: &Wanted<'_>, chassis: &str) -> Error {
        let pod = wanted.pod;
        let ifname = wanted.ifname;
        let later = |cause: String, remedy: &str| Error::new(code::TRY_AGAIN_LATER, cause, remedy);
        match self {
            Self::NoRow => later(
                format!(
                    "Pod {pod} (UID {}): no address is allocated on chassis {chassis} for {ifname}: the southbound \
                     database has no Port_Binding with that UID and the marker node.{chassis}.",
                    pod.uid
                ),
                "Look at the pod's events and at cni-controller's log; a static pod gets its address when its mirror pod \
                 exists.",
            ),
            Self::EarlierPod { uid } => later(
                format!(
                    "Pod {pod}: its port still belongs to an earlier pod of that name (UID {uid}, wanted {}).",
                    pod.uid
                ),
                "cni-controller moves it when it sees the new pod: look at cni-controller's log.",
            ),
            Self::NoInterface { have } => later(
                format!(
                    "Pod {pod}: no address is allocated for interface {ifname}; allocated are {}.",
                    have.join(", ")
                ),
                "Look at the pod's events and at its annotation k8s.v1.cni.cncf.io/networks: an interface is named there, \
                 or net1, net2, … by its position in the whole list.",
            ),
            Self::OtherSubnet {
                logical_port,
                subnet,
            } => Error::new(
                code::INVALID_CONFIG,
                format!(
                    "Pod {pod}, interface {ifname}: port {logical_port} is in subnet {subnet}, but the network's \
                     configuration names subnet {}.",
                    wanted.subnet.unwrap_or_default()
                ),
                "Let the NetworkAttachmentDefinition and the pod's annotation name one subnet, then recreate the pod.",
            ),
            Self::Unreadable { logical_port, why } => later(
                format!(
                    "Pod {pod}, interface {ifname}: port {logical_port} cannot be used: {why}."
                ),
                "Let cni-controller and cni-node be of one version; look at cni-controller's log.",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
