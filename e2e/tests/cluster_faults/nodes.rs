//! A node is switched off and deleted: nothing in OVN remembers it. It comes back and works.

use anyhow::Result;
use e2e::until;

use crate::world::{START, World};

pub(crate) fn deleted(world: &World<'_>) -> Result<String> {
    let node = world.lab.node("n2");
    for part in ["kubelet", "ovn-controller"] {
        node.process(part).kill9()?;
    }
    // Pods of a node that is not there are collected after 40 s: it is back before that.
    world.lab.kubectl(&["delete", "node", "n2"])?;
    until("the rows of node n2 to go", START, || {
        let port = [
            "--bare",
            "--columns=name",
            "find",
            "Logical_Switch_Port",
            "name=node/n2",
        ];
        let unit = [
            "--bare",
            "--columns=_uuid",
            "find",
            "Logical_Router_Policy",
            "external_ids:outboard=node/n2",
        ];
        let mut left = vec![world.lab.nbctl(&port)?, world.lab.nbctl(&unit)?];
        for table in ["Chassis", "Chassis_Private"] {
            left.push(
                world
                    .lab
                    .sbctl(&["--bare", "--columns=name", "find", table, "name=n2"])?,
            );
        }
        anyhow::ensure!(left.iter().all(String::is_empty), "left: {left:?}");
        Ok(Some(()))
    })?;
    for part in ["ovn-controller", "kubelet"] {
        node.process(part).restart()?;
    }
    until("node n2 to register again", START, || {
        world.lab.kubectl(&["get", "node", "n2"]).map(Some)
    })?;
    world
        .lab
        .kubectl(&["wait", "--for=condition=Ready", "node/n2", "--timeout=60s"])?;
    world.outboard_ready()?;
    let took = world.connected()?;
    world.start(&[("again", "n2")])?;
    world.serves("n1", "again")?;
    Ok(format!(
        "back in the network {:.1} s after it was Ready again",
        took.as_secs_f32()
    ))
}
