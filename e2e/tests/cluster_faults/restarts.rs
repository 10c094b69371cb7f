//! A part is killed with SIGKILL and started again while pods run: traffic returns, nothing is made anew, new pods start.

use anyhow::{Result, ensure};
use e2e::checks;

use crate::world::World;

pub(crate) fn northd(world: &World<'_>) -> Result<String> {
    survives(world, |w| w.lab.node("n1").process("northd").restart())
}

pub(crate) fn ovn_controller(world: &World<'_>) -> Result<String> {
    survives(world, |w| {
        w.lab.node("n2").process("ovn-controller").restart()
    })
}

pub(crate) fn ovs_vswitchd(world: &World<'_>) -> Result<String> {
    survives(world, |w| {
        w.lab.node("n2").process("ovs-vswitchd").restart()
    })
}

/// The databases, the API server and their clients are on the far side of this one.
pub(crate) fn ovs_vswitchd_of_the_master(world: &World<'_>) -> Result<String> {
    survives(world, |w| {
        w.lab.node("n1").process("ovs-vswitchd").restart()
    })
}

pub(crate) fn local_database(world: &World<'_>) -> Result<String> {
    survives(world, |w| {
        w.lab.node("n2").process("ovsdb-server").restart()
    })
}

pub(crate) fn southbound(world: &World<'_>) -> Result<String> {
    survives(world, |w| w.lab.node("n1").process("sb").restart())
}

pub(crate) fn northbound(world: &World<'_>) -> Result<String> {
    survives(world, |w| w.lab.node("n1").process("nb").restart())
}

pub(crate) fn containerd(world: &World<'_>) -> Result<String> {
    survives(world, |w| w.lab.node("n2").process("containerd").restart())
}

pub(crate) fn kubelet(world: &World<'_>) -> Result<String> {
    survives(world, |w| w.lab.node("n2").process("kubelet").restart())
}

pub(crate) fn cni_node(world: &World<'_>) -> Result<String> {
    survives(world, |w| {
        let pod = w.system_pod("cni-node", "n2")?;
        w.kill_container(&pod, "cni-node")
    })
}

fn survives(world: &World<'_>, fault: impl Fn(&World<'_>) -> Result<()>) -> Result<String> {
    let standing = world.identities(checks::NAMESPACE)?;
    fault(world)?;
    let took = world.connected()?;
    // The part that was restarted has a hand in every start: a pod of either node shows that it works again.
    world.start(&[("late-1", "n1"), ("late-2", "n2")])?;
    world.serves("n1", "late-2")?;
    world.serves("n2", "late-1")?;
    world.connected()?;
    let after = world.identities(checks::NAMESPACE)?;
    ensure!(
        after == standing,
        "pods were made anew:\n{standing:#?}\n{after:#?}"
    );
    Ok(format!(
        "all flows seen again {:.1} s after the restart",
        took.as_secs_f32()
    ))
}
