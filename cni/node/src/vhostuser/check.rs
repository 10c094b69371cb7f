//! CHECK: is the attachment what its result says? There is no link to look at: volume, mount, device information and port are.

use std::path::Path;

use tokio::time::Instant;

use super::attach::{blocking, refused};
use super::socket::Socket;
use super::{device_info, needs, volume};
use crate::attachment::Record;
use crate::call::Check;
use crate::check::{differs, port};
use crate::error::Error;
use crate::netns::Netns;
use crate::node::Node;

/// Serves a CHECK of an attachment of this kind. The caller holds its lock.
pub(crate) async fn check(
    node: &Node,
    check: &Check,
    record: &Record,
    socket: &Socket,
    deadline: Instant,
) -> Result<(), Error> {
    listed(check, socket)?;
    Netns::of_pod(&check.netns)?;
    let (args, mounts) = (node.vhost.args.clone(), node.vhost.mounts.clone());
    let (pod, place) = (record.pod.clone(), socket.clone());
    let difference = blocking(move || {
        let Some(wanted) = volume::existing(&args, &pod, place.volume) else {
            let what = format!(
                "volume {} has no directory for its socket",
                place.volume.name()
            );
            return Ok(Some(what));
        };
        let seen = mounts.observe().map_err(|why| refused(&why))?;
        let seen = seen.get(&place.mount).copied().unwrap_or_default();
        if seen.directory != Some(wanted) {
            let path = Path::new(&place.server_path).parent().map(Path::display);
            return Ok(path.map(|path| format!("{path} is not the directory of its socket")));
        }
        let told = place
            .device_info
            .as_deref()
            .is_none_or(device_info::is_there);
        Ok((!told).then(|| "its device information is gone".to_owned()))
    });
    if let Some(what) = difference.await? {
        return Err(differs(&check.id, &what));
    }
    let link = record.link();
    if let Some(row) = node.vswitch.interface(&link) {
        if row.r#type != needs::TYPE
            || row.options.get("vhost-server-path") != Some(&socket.server_path)
        {
            return Err(differs(&check.id, "its port leads to another socket"));
        }
        if let Some(error) = row.error {
            return Err(differs(&check.id, &needs::of_port(&error)));
        }
    }
    port(node, &check.id, &link, deadline).await
}

/// Whether the result is of this interface, with this socket. Results before 1.1.0 have no socket.
fn listed(check: &Check, socket: &Socket) -> Result<(), Error> {
    let sandbox = check.netns.display().to_string();
    let ours = check.prev_result.interfaces.iter().find(|interface| {
        interface.name == check.id.ifname && interface.sandbox.as_deref() == Some(&sandbox)
    });
    let Some(ours) = ours else {
        return Err(differs(
            &check.id,
            &format!("\"prevResult\" lists no such interface in sandbox {sandbox}"),
        ));
    };
    match &ours.socket_path {
        Some(path) if *path != socket.container_path => Err(differs(
            &check.id,
            &format!("its socket is {}, not {path}", socket.container_path),
        )),
        _ => Ok(()),
    }
}
