//! Waiting until ovn-controller says that a port's flows are in place, and why they are not.

use cni_bin::code;
use ovsdb::Uuid;
use tokio::time::Instant;

use crate::error::Error;
use crate::node::Node;
use crate::vhostuser::needs;
use crate::vswitch::Interface;

/// Waits until the flows of the port are in place. `iface_id` is its logical port, `interface` its row in Open vSwitch.
pub(crate) async fn installed(
    node: &Node,
    iface_id: &str,
    interface: Uuid,
    deadline: Instant,
) -> Result<(), Error> {
    let mut changed = node.vswitch.changed();
    loop {
        let row = node.vswitch.row(interface);
        match &row {
            Some(row)
                if row
                    .external_ids
                    .get("ovn-installed")
                    .is_some_and(|v| v == "true") =>
            {
                return Ok(());
            }
            // While it is read again the replica is empty.
            None if node.vswitch.trouble().is_none() => return Err(taken(iface_id)),
            Some(_) | None => {}
        }
        // What a socket's port lacks does not come by waiting, and a link's may: the link was made a moment ago.
        let lacks = row.as_ref().and_then(vhost_error);
        if lacks.is_some() {
            return Err(explain(node, iface_id, lacks).await);
        }
        if !crate::wait::change(&mut changed, deadline).await {
            let of_vswitchd = row.and_then(|row| row.error.or_else(|| no_ofport(row.ofport)));
            return Err(explain(node, iface_id, of_vswitchd).await);
        }
    }
}

/// Waits until ovs-vswitchd has taken the port up: until then it may write the link's flags.
pub(crate) async fn taken_up(
    node: &Node,
    iface_id: &str,
    interface: Uuid,
    deadline: Instant,
) -> Result<(), Error> {
    let mut changed = node.vswitch.changed();
    loop {
        let row = node.vswitch.row(interface);
        let why = match row {
            Some(row) if row.ofport.is_some_and(|number| number > 0) => return Ok(()),
            Some(row) if row.error.is_some() => {
                return Err(explain(node, iface_id, row.error).await);
            }
            None if node.vswitch.trouble().is_none() => return Err(taken(iface_id)),
            row => row.and_then(|row| no_ofport(row.ofport)),
        };
        if !crate::wait::change(&mut changed, deadline).await {
            return Err(explain(node, iface_id, why).await);
        }
    }
}

/// What Open vSwitch says of a vhost-user port that it cannot make, and what to do about it.
fn vhost_error(row: &Interface) -> Option<String> {
    let error = row.error.as_deref().filter(|_| row.r#type == needs::TYPE)?;
    Some(needs::of_port(error))
}

fn taken(iface_id: &str) -> Error {
    Error::new(
        code::TRY_AGAIN_LATER,
        format!(
            "Port {iface_id} was taken over by a younger sandbox of the same pod, or removed from Open vSwitch."
        ),
        "Nothing needs to be done if the pod runs; else look who removes ports of br-int.",
    )
}

async fn explain(node: &Node, port: &str, of_vswitchd: Option<String>) -> Error {
    let (cause, remedy) = if let Some(trouble) = node.vswitch.trouble() {
        (
            format!("Open vSwitch's database was lost ({trouble})"),
            "See that ovsdb-server runs on this node.",
        )
    } else if let Some(why) = of_vswitchd {
        (why, "See that ovs-vswitchd runs on this node, and its log.")
    } else if let Some(trouble) = node.ovn_controller.trouble().await {
        (trouble, "The runtime tries again by itself.")
    } else if let Some(why) = node.southbound.binding(port) {
        (
            why,
            "See that one chassis alone has an Interface with that iface-id, and cni-controller's log.",
        )
    } else {
        (
            "ovn-controller has not reported ovn-installed".to_owned(),
            "Look at ovn-controller's log.",
        )
    };
    Error::new(
        code::TRY_AGAIN_LATER,
        format!("Port {port} was plugged, but its flows are not in place: {cause}."),
        remedy,
    )
}

fn no_ofport(ofport: Option<i64>) -> Option<String> {
    let usable = ofport.is_some_and(|number| number > 0);
    (!usable).then(|| "ovs-vswitchd has not taken up the port".to_owned())
}
