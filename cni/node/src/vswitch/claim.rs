//! What an Interface of ours says of its attachment, and back.

use std::collections::BTreeMap;

use ovsdb::{Row, Values};

use super::Interface;
use crate::attachment::{AttachmentId, Record};
use crate::dpu::representor::Plug;
use crate::reconcile::plan::ObservedPort;
use crate::rows::external_id;
use crate::vhostuser::needs;

pub(super) const OWNER_KEY: &str = "outboard";
pub(super) const OWNER_POD: &str = "pod";
const SANDBOX: &str = "sandbox";
const IFNAME: &str = "ifname";
const IFACE_ID: &str = "iface-id";
/// Index of the representor when it was plugged: one that came back has another, and Open vSwitch may not have noticed.
const LINK: &str = "link-index";

/// Whether a row is an attachment's.
pub(super) fn is_of(row: &Row, id: &AttachmentId) -> bool {
    external_id(row, SANDBOX) == Some(&id.container) && external_id(row, IFNAME) == Some(&id.ifname)
}

/// Whether a row claims a logical port.
pub(super) fn is_for(row: &Row, iface_id: &str) -> bool {
    external_id(row, IFACE_ID) == Some(iface_id)
}

const SERVER_PATH: &str = "vhost-server-path";

/// The columns of a new Interface. `link` is the representor's index.
pub(super) fn columns(record: &Record, link: Option<u32>) -> Values {
    let columns = Values::new()
        .set("name", record.link().as_str())
        .set("external_ids", external_ids(record, link));
    if let Some(socket) = record.socket() {
        return columns
            .set("type", needs::TYPE)
            .set(
                "options",
                BTreeMap::from([(SERVER_PATH.to_owned(), socket.server_path.clone())]),
            )
            .set("mtu_request", i64::from(socket.mtu));
    }
    match record.far().map(|far| (&far.plug, far.mtu)) {
        Some((Plug::Dpdk { devargs }, mtu)) => columns
            .set("type", "dpdk")
            .set(
                "options",
                BTreeMap::from([("dpdk-devargs".to_owned(), devargs.clone())]),
            )
            .set("mtu_request", i64::from(mtu)),
        _ => columns,
    }
}

/// The owner triple (pod UID, sandbox, ifname) and what ovn-controller reads. A host's own interface has no pod.
fn external_ids(record: &Record, link: Option<u32>) -> BTreeMap<String, String> {
    let (id, pod) = (&record.id, &record.pod);
    let mut ids: BTreeMap<String, String> = [
        (IFACE_ID, record.port.iface_id.clone()),
        ("attached-mac", record.port.mac.clone()),
        (OWNER_KEY, OWNER_POD.to_owned()),
        (SANDBOX, id.container.clone()),
        (IFNAME, id.ifname.clone()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into();
    let mut put = |key: &str, value: String| {
        ids.insert(key.to_owned(), value);
    };
    if !pod.uid.is_empty() {
        put("iface-id-ver", pod.uid.clone());
        put("uid", pod.uid.clone());
        put("pod", pod.to_string());
    }
    match record.far() {
        None => put("netns", record.netns.display().to_string()),
        Some(far) => {
            put("host", far.host.clone());
            put("function", far.function.to_string());
            if let Some(index) = link {
                put(LINK, index.to_string());
            }
        }
    }
    ids
}

/// An Interface of ours as the reconcile loop sees it.
pub(super) fn observed(interface: Interface) -> ObservedPort {
    let (mut ids, mut options) = (interface.external_ids, interface.options);
    let link = ids.get(LINK).and_then(|index| index.parse().ok());
    let mut take = |key: &str| ids.remove(key).unwrap_or_default();
    ObservedPort {
        interface: interface.uuid,
        name: interface.name,
        iface_id: take(IFACE_ID),
        id: AttachmentId {
            container: take(SANDBOX),
            ifname: take(IFNAME),
        },
        link,
        socket: options.remove(SERVER_PATH),
    }
}
