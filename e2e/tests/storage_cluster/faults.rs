//! Parts of storage that die at a bad moment, and requests that can't be granted.

use anyhow::{Context as _, Result, ensure};
use e2e::until;
use e2e::volumes::{Claim, Mode, User};
use serde_json::json;

use crate::copies::LOG;
use crate::world::{LONG, PARTS, SYSTEM, World, file};

/// csi-controller is killed when it has made volumes and has not said so yet: each of ten claims has one volume in the end,
/// and there are no others.
pub(crate) fn controller_killed(world: &World<'_>) -> Result<String> {
    const TEN: usize = 10;
    let names: Vec<String> = (0..TEN).map(|i| format!("data-{i}")).collect();
    let killed = || -> Result<usize> {
        let pod = world.system_pod("csi-controller", None)?;
        for name in &names {
            world.claim(&Claim::new(name, "16Mi", Mode::Filesystem))?;
        }
        // Volumes are called after their claims.
        let uids = world.get(&["pvc"], "{.items[*].metadata.uid}")?;
        let list = format!(
            "grep -lrE '{}' /var/lib/outboard/volumes/catalogue/volumes | wc -l",
            uids.replace(' ', "|")
        );
        let made = until("the first volume", LONG, || {
            let made: usize = world.lab.node("n1").script(&list)?.trim().parse()?;
            Ok((made > 0).then_some(made))
        })?;
        world.kill_container(&pod, "csi-controller")?;
        let known = world.all_volumes()?;
        ensure!(
            known.len() < TEN,
            "all is done already: the case shows nothing"
        );
        restarted(world, &pod, "csi-controller")?;
        Ok(made)
    };
    let slowly = "FAILPOINTS=create::made=sleep(5000)";
    let made = with_variable(world, PARTS[0], slowly, killed)?;
    for name in &names {
        world.bound(name)?;
    }
    let volumes = world.all_volumes()?;
    ensure!(
        volumes.len() == TEN,
        "ten claims have the volumes {volumes:?}"
    );
    Ok(format!(
        "killed when {made} volumes were made and not told of; {TEN} in the end"
    ))
}

/// Gives a program of ours a variable (of its test build) while something is done.
fn with_variable<T>(
    world: &World<'_>,
    workload: &str,
    variable: &str,
    work: impl Fn() -> Result<T>,
) -> Result<T> {
    let container = workload.rsplit('/').next().unwrap_or_default();
    let set = |variable: &str| -> Result<()> {
        let argv = ["set", "env", "-n", SYSTEM, workload, "-c", container];
        world.lab.kubectl(&[&argv[..], &[variable]].concat())?;
        world.rolled_out(&[workload])
    };
    let worked = set(variable).and_then(|()| work());
    // Also when the case has failed.
    let name = variable.split('=').next().unwrap_or_default();
    set(&format!("{name}-"))?;
    worked
}

/// Waits until a container was started again.
fn restarted(world: &World<'_>, pod: &str, container: &str) -> Result<()> {
    let restarts =
        format!("{{.status.containerStatuses[?(@.name==\"{container}\")].restartCount}}");
    until(&format!("the end of {container}"), LONG, || {
        let count = world.get(&["-n", SYSTEM, "pod", pod], &restarts)?;
        ensure!(
            !["", "0"].contains(&count.as_str()),
            "it runs since its start"
        );
        Ok(Some(()))
    })
}

/// csi-node-host dies at the beginning of each NodePublish, the volume being staged, until it is cured.
pub(crate) fn node_host_killed(world: &World<'_>) -> Result<String> {
    let killed = || -> Result<String> {
        world.claim(&Claim::new("data", "32Mi", Mode::Filesystem))?;
        world.create(&User::new("user", "data", Mode::Filesystem).on("n2"))?;
        let pod = world.system_pod("csi-node-host", Some("n2"))?;
        restarted(world, &pod, "csi-node-host")?;
        let volume = world.bound("data")?;
        // kubelet names a staging directory after the handle.
        let staged = format!(
            "grep $(printf %s {} | sha256sum | cut -c1-64)/globalmount /proc/self/mountinfo",
            volume.handle
        );
        // What killed it may have been another pod's volume.
        until("the volume to be staged", LONG, || {
            world.lab.node("n2").script(&staged).map(Some)
        })?;
        world.get(&["pod", "user"], "{.status.phase}")
    };
    let phase = with_variable(
        world,
        "daemonset/csi-node-host",
        "OUTBOARD_KILL_AT=publish::begun",
        killed,
    )?;
    ensure!(
        phase == "Pending",
        "the pod is {phase} though its volume can't be published"
    );
    world.ready("user")?;
    let md5 = world.fill("user", file(Mode::Filesystem), 4)?;
    world.replace(
        "user",
        &User::new("other", "data", Mode::Filesystem).on("n1"),
    )?;
    world.holds("other", file(Mode::Filesystem), 4, &md5)?;
    Ok("staged, killed at NodePublish, and used after the cure".into())
}

/// kubelet is killed under a pod that writes: the pod does not notice, and its volume is found again.
pub(crate) fn kubelet_restarts(world: &World<'_>) -> Result<String> {
    world.use_new(
        &Claim::new("data", "64Mi", Mode::Filesystem),
        &User::new("writer", "data", Mode::Filesystem)
            .on("n1")
            .writing(LOG),
    )?;
    let container =
        "{.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}";
    let before = world.get(&["pod", "writer"], container)?;
    world.advance("writer", 20)?;
    world.lab.node("n1").process("kubelet").restart()?;
    world.advance("writer", 50)?;
    // What is new shows that kubelet works again.
    world.use_new(
        &Claim::new("more", "16Mi", Mode::Block),
        &User::new("more", "more", Mode::Block).on("n1"),
    )?;
    let after = world.get(&["pod", "writer"], container)?;
    ensure!(
        before == after,
        "the writer's container was {before}, and is {after}"
    );
    let written = world.stop_writer("writer")?;
    world.replace(
        "writer",
        &User::new("reader", "data", Mode::Filesystem).on("n1"),
    )?;
    let blocks = world.verify("reader", LOG, written)?;
    Ok(format!(
        "{blocks} blocks, the slowest {:.2?}",
        written.longest
    ))
}

/// What can't be granted is said where its owner looks: in an Event of the claim or of the pod.
pub(crate) fn bad_parameters(world: &World<'_>) -> Result<String> {
    let unknown = world.class("unknown", &json!({"iopss": "5"}))?;
    let size = world.class("size", &json!({"blockSize": "1000"}))?;
    let mkfs = world.class("mkfs", &json!({"mkfsOptions": "--no-such-option"}))?;
    let claim = Claim::new("unknown", "16Mi", Mode::Filesystem);
    world.claim(&Claim {
        class: &unknown,
        ..claim.clone()
    })?;
    world.claim(&Claim {
        class: &size,
        name: "size",
        ..claim.clone()
    })?;
    world.claim(&Claim {
        access: "ReadWriteMany",
        name: "shared",
        ..claim.clone()
    })?;
    world.claim(&Claim {
        class: &mkfs,
        name: "mkfs",
        ..claim.clone()
    })?;
    world.create(&User::new("mkfs", "mkfs", Mode::Filesystem))?;
    for claim in ["unknown", "size", "shared"] {
        // A class that waits for a pod provisions nothing before.
        world.create(&User::new(claim, claim, Mode::Filesystem))?;
    }
    let said = world.event(
        "ProvisioningFailed",
        &[
            "\"iopss\" is not a parameter of this driver",
            "allowed: backend",
        ],
    )?;
    world.event(
        "ProvisioningFailed",
        &["blockSize = \"1000\" is not allowed", "512 or 4096"],
    )?;
    world.event("ProvisioningFailed", &["MULTI_NODE_MULTI_WRITER"])?;
    world.event("FailedMount", &["mkfsOptions"])?;
    let sentence = said.split("desc = ").last().context("an Event")?;
    Ok(format!("said: {sentence}"))
}
