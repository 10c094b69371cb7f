//! A part goes and comes back while pods run: the longest gap of the pings is measured, and nothing is made anew.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use e2e::pairs::{Ping, Watched};
use e2e::{card, until};

use crate::world::{RETURN, START, World};

/// What does not touch ports is not noticed: this is two lost pings and a busy machine.
pub(crate) const UNNOTICED: Duration = Duration::from_millis(1500);
/// The aim is ten seconds, and what it takes is printed; this much later it was not a recovery, but something that came round: a period,
/// a restart.
pub(crate) const RECOVERED: Duration = Duration::from_secs(30);

/// A pod that starts while the channel is cut waits for it (for less than its sandbox's time); one that ends, ends; running ones
/// notice nothing.
pub(crate) fn channel_cut(world: &World<'_>) -> Result<String> {
    let host = world.pair().host.as_str();
    world.start(&[("ends", host)])?;
    let watch = world.watch()?;
    let cut = Instant::now();
    world.cut_channel()?;
    let said = world.status_is(world.host(), Some(51), Duration::from_secs(8))?;
    let status = cut.elapsed();
    until("HostSeen to be False", Duration::from_secs(15), || {
        let (status, why) = world.pair().condition(world.lab, "HostSeen")?;
        ensure!(status == "False", "it is {status:?}: {why}");
        Ok(Some(()))
    })?;
    let seen = cut.elapsed();
    world.create(&[("waits", host)])?;
    world
        .delete("ends")
        .context("a pod that ends while the channel is cut")?;
    let phase = ["get", "pod", "-n", &world.ns, "waits", "-o"];
    let phase = world
        .lab
        .kubectl(&[&phase[..], &["jsonpath={.status.phase}"]].concat())?;
    ensure!(
        phase == "Pending",
        "a pod is {phase} while the channel is cut"
    );
    world.heal_channel()?;
    let healed = SystemTime::now();
    world.lab.wait_ready(&world.ns, "waits", START)?;
    world.serves("m", "waits")?;
    world.status_is(world.host(), None, RETURN)?;
    let seen_by_pings = watch.end(healed, RETURN)?;
    unnoticed(&seen_by_pings)?;
    world.whole()?;
    Ok(format!(
        "STATUS 51 after {:.1} s ({said}), HostSeen=False after {:.1} s, gap {}",
        status.as_secs_f32(),
        seen.as_secs_f32(),
        gap(&seen_by_pings)
    ))
}

/// ovs-vswitchd and ovsdb-server of the DPU are killed and start with the database they had.
pub(crate) fn switch_restarts(world: &World<'_>) -> Result<String> {
    let watch = world.watch()?;
    world.dpu().process("ovsdb-server").restart()?;
    world.dpu().process("ovs-vswitchd").restart()?;
    let moment = answers(world)?;
    let seen = watch.end(moment, RETURN)?;
    recovered(&seen)?;
    world.start(&[("late", &world.pair().host)])?;
    world.whole()?;
    Ok(format!("gap {}", gap(&seen)))
}

/// They start with an empty one: bridges, ports, the chassis's settings are all gone.
pub(crate) fn switch_loses_its_database(world: &World<'_>) -> Result<String> {
    let watch = world.watch()?;
    world.lab.site.lose_switch_database(&world.pair().dpu)?;
    let moment = answers(world)?;
    let seen = watch.end(moment, RETURN)?;
    recovered(&seen)?;
    world.start(&[("late", &world.pair().host)])?;
    world.whole()?;
    Ok(format!("gap {}", gap(&seen)))
}

/// Nobody says any more who serves the host: ports stay where they are, new pods wait. Then somebody does again.
pub(crate) fn object_made_anew(world: &World<'_>) -> Result<String> {
    let (pair, host) = (world.pair(), world.pair().host.as_str());
    let watch = world.watch()?;
    let delete = [
        "delete",
        "dpus.iaas.yusur.io",
        &pair.object,
        "--timeout=30s",
    ];
    world.lab.kubectl(&delete)?;
    world.status_is(world.host(), Some(51), Duration::from_secs(30))?;
    until("the Node to say that nobody serves it", START, || {
        let (status, why) = pair.node_condition(world.lab)?;
        ensure!(status != "True", "it says {why}");
        Ok(Some(()))
    })?;
    let binding = format!("name=node/{host}");
    let port = [
        "--bare",
        "--columns=options",
        "find",
        "Logical_Switch_Port",
        &binding,
    ];
    let options = world.lab.nbctl(&port)?;
    ensure!(
        options.contains(&format!("requested-chassis={}", pair.dpu)),
        "the host's ports have moved: {options}"
    );
    world.create(&[("waits", host)])?;
    world.lab.apply(&pair.manifest(world.lab))?;
    let moment = SystemTime::now();
    pair.wait(world.lab, RETURN)?;
    world.lab.wait_ready(&world.ns, "waits", START)?;
    let seen = watch.end(moment, RETURN)?;
    unnoticed(&seen)?;
    world.whole()?;
    Ok(format!("gap {}", gap(&seen)))
}

/// All functions vanish, from pods too, and new ones come: pods have the same MAC and addresses on another function.
pub(crate) fn card_replaced(world: &World<'_>) -> Result<String> {
    let watch = world.watch()?;
    let representors = card::representors(world.dpu())?;
    ensure!(!representors.is_empty(), "the card has no functions");
    let lines: String = representors
        .iter()
        .map(|link| format!("link delete {link}\n"))
        .collect();
    world
        .dpu()
        .script(&format!("ip -force -batch - <<'LINES'\n{lines}LINES\n"))?;
    let moment = SystemTime::now();
    let seen = watch.end(moment, RETURN)?;
    recovered(&seen)?;
    world.start(&[("late", &world.pair().host)])?;
    world.whole()?;
    Ok(format!(
        "{} functions, gap {}",
        representors.len(),
        gap(&seen)
    ))
}

/// The DPU goes off and on again under running pods of its host: same MAC, addresses, namespace; nothing restarts.
pub(crate) fn dpu_reboots(world: &World<'_>) -> Result<String> {
    let pair = world.pair();
    let watch = world.watch()?;
    let other = Ping::start(
        world.lab,
        world.scene.on("h2")?,
        &world.scene.on("m")?.pod.ips[0],
    )?;
    let reboot = world.lab.site.reboot(&pair.dpu)?;
    let seen = watch.end(reboot.network, RETURN)?;
    recovered(&seen)?;
    let other = other.stop()?;
    ensure!(
        other.longest < UNNOTICED,
        "the other pair lost {:?}",
        other.longest
    );
    world.start(&[("late", &pair.host), ("beside", &pair.dpu)])?;
    world.whole()?;
    let (network, kubelet) = reboot.took();
    Ok(format!(
        "Open vSwitch answered after {:.1} s, kubelet was started after {:.1} s, gap {}",
        network.as_secs_f32(),
        kubelet.as_secs_f32(),
        gap(&seen)
    ))
}

/// The host goes off and on again: its pods get new sandboxes under their addresses, the DPU's own pods notice nothing.
pub(crate) fn host_reboots(world: &World<'_>) -> Result<String> {
    let (scene, pair) = (world.scene, world.pair());
    let master = scene.on("m")?;
    let ping = |to: &str| Ping::start(world.lab, master, &scene.on(to)?.pod.ips[0]);
    let (host, dpu, other) = (ping(&pair.host)?, ping(&pair.dpu)?, ping("h2")?);
    let before = &scene.on(&pair.host)?.sandbox;
    let reboot = world.lab.site.reboot(&pair.host)?;
    let uid = &scene.on(&pair.host)?.pod.uid;
    until("another sandbox of the host's pod", START, || {
        let now = e2e::sandbox(world.host(), uid)?;
        Ok((now != *before).then_some(()))
    })?;
    host.answered_after(SystemTime::now(), START)?;
    scene.ready()?;
    scene.addressed_as_before(&pair.host)?;
    scene.unchanged(&pair.dpu)?;
    let (host, dpu, other) = (host.stop()?, dpu.stop()?, other.stop()?);
    for (who, gap) in [("the DPU's pod", dpu), ("the other host's pod", other)] {
        ensure!(gap.longest < UNNOTICED, "{who} lost {:?}", gap.longest);
    }
    world.start(&[("late", &pair.host)])?;
    world.whole()?;
    Ok(format!(
        "gap of the host's pod {:.1} s, {:.1} s after its kubelet was started",
        host.longest.as_secs_f32(),
        host.after(reboot.kubelet).as_secs_f32()
    ))
}

/// Waits until the DPU's Open vSwitch answers; since when it does.
fn answers(world: &World<'_>) -> Result<SystemTime> {
    until("Open vSwitch to answer", RETURN, || {
        world
            .dpu()
            .exec(&["ovs-appctl", "--timeout=2", "-t", "ovs-vswitchd", "version"])
            .map(Some)
    })?;
    Ok(SystemTime::now())
}

/// Of a watch that has found the pod as it was: same sandbox and namespace, MAC, addresses, no restart.
fn recovered(seen: &Watched) -> Result<()> {
    ensure!(
        seen.after < RECOVERED,
        "pings were answered {:?} after all was there again",
        seen.after
    );
    Ok(())
}

pub(crate) fn unnoticed(seen: &Watched) -> Result<()> {
    ensure!(
        seen.gap < UNNOTICED,
        "pings were not answered for {:?}",
        seen.gap
    );
    Ok(())
}

pub(crate) fn gap(seen: &Watched) -> String {
    format!(
        "{:.1} s, answered again {:.1} s after all was there",
        seen.gap.as_secs_f32(),
        seen.after.as_secs_f32()
    )
}
