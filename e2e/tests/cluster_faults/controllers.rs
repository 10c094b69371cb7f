//! cni-controller and its database: who writes, and who takes over.

use anyhow::{Context as _, Result, ensure};
use e2e::until;
use serde_json::{Value, json};

use crate::world::{Paused, START, SYSTEM, World};

const SECOND: &str = "cni-controller-b";

/// The server that leads NB's cluster is killed while pods start.
pub(crate) fn leader_lost(world: &World<'_>) -> Result<String> {
    let master = world.lab.node("n1");
    let leader = world.lab.central.nb_leader(master)?;
    master.process(&leader).kill9()?;
    world.start(&[("a", "n1"), ("b", "n2"), ("c", "n2")])?;
    let next = until("another leader", START, || {
        let next = world.lab.central.nb_leader(master)?;
        Ok((next != leader).then_some(next))
    })?;
    world.serves("n1", "b")?;
    world.connected()?;
    master.process(&leader).restart()?;
    world.start(&[("d", "n1")])?;
    Ok(format!("{leader} led, was killed, {next} leads"))
}

/// Two at once: one writes. The one that writes freezes, the other takes over, the frozen one wakes and writes nothing; then
/// the writer is killed.
pub(crate) fn two(world: &World<'_>) -> Result<String> {
    let first = world.system_pod("cni-controller", "n1")?;
    let (holder, epoch) = mark(world)?;
    ensure!(holder.contains(&first), "{holder} writes, not {first}");
    start_second(world)?;
    let outcome = contest(world, &first, epoch);
    world
        .lab
        .kubectl(&["delete", "-n", SYSTEM, "deployment", SECOND])?;
    world.outboard_ready()?;
    outcome
}

fn contest(world: &World<'_>, first: &str, epoch: u64) -> Result<String> {
    let second = world.system_pod(SECOND, "n1")?;
    world.start(&[("one", "n2")])?;
    let (holder, now) = mark(world)?;
    ensure!(
        holder.contains(first) && now == epoch,
        "{holder}/{now} writes, though {first} was there first"
    );

    let frozen = Paused::pid(world.container_pid(SYSTEM, first, "cni-controller")?)?;
    taken_over(world, &second, epoch + 1).context("the writer was stopped")?;
    world.start(&[("two", "n2")])?;
    drop(frozen);
    // Whatever it still had in mind is refused: the mark, and the ports, stay the other's.
    world.start(&[("three", "n1")])?;
    until("the one that was frozen to stand by", START, || {
        world
            .lab
            .kubectl(&[
                "wait",
                "-n",
                SYSTEM,
                "--for=condition=Ready",
                &format!("pod/{first}"),
                "--timeout=1s",
            ])
            .map(Some)
    })?;
    world.start(&[("four", "n2")])?;
    let (holder, now) = mark(world)?;
    ensure!(
        holder.contains(&second) && now == epoch + 1,
        "{holder}/{now} writes, not {second}"
    );

    // kubelet would start it again at once, and it would go on with its own Lease.
    let pid = world.container_pid(SYSTEM, &second, "cni-controller")?;
    let kubelet = Paused::process(&world.lab.node("n1").process("kubelet"))?;
    e2e::run(&["kill", "-KILL", &pid])?;
    let taken = taken_over(world, first, epoch + 2).context("the writer was killed");
    let served = taken.and_then(|()| world.start(&[("five", "n2")]));
    drop(kubelet);
    served?;
    world.connected()?;
    Ok(format!(
        "epochs {epoch}, {}, {}: each time one wrote",
        epoch + 1,
        epoch + 2
    ))
}

fn taken_over(world: &World<'_>, pod: &str, epoch: u64) -> Result<()> {
    until(&format!("{pod} to take over"), START, || {
        let (holder, now) = mark(world)?;
        ensure!(
            holder.contains(pod) && now == epoch,
            "{holder}/{now} writes"
        );
        Ok(Some(()))
    })
}

/// Who may write NB, and which term that is.
fn mark(world: &World<'_>) -> Result<(String, u64)> {
    let mark = world
        .lab
        .nbctl(&["get", "NB_Global", ".", "external_ids:outboard-owner"])?;
    let mark = mark.trim_matches('"');
    let (holder, epoch) = mark
        .rsplit_once('/')
        .with_context(|| format!("the owner's mark is {mark:?}"))?;
    Ok((
        holder.to_owned(),
        epoch
            .parse()
            .with_context(|| format!("the owner's mark is {mark:?}"))?,
    ))
}

/// A second Deployment like the first one, on the same node, with its own port.
fn start_second(world: &World<'_>) -> Result<()> {
    let mut deployment = world.json(&["get", "-n", SYSTEM, "deployment", "cni-controller"])?;
    let labels = json!({"app.kubernetes.io/name": SECOND});
    deployment["metadata"] = json!({"name": SECOND, "namespace": SYSTEM, "labels": labels});
    deployment["spec"]["selector"] = json!({"matchLabels": labels});
    deployment["status"] = Value::Null;
    let template = &mut deployment["spec"]["template"];
    template["metadata"]["labels"] = labels;
    template["spec"]["topologySpreadConstraints"] = json!([]);
    let container = &mut template["spec"]["containers"][0];
    container["ports"] = json!([{"name": "admin", "containerPort": 9478}]);
    if let Some(arguments) = container["args"].as_array_mut() {
        arguments.push(json!("--admin-address=[::]:9478"));
    }
    world.lab.apply(&deployment.to_string())?;
    let deployment = format!("deployment/{SECOND}");
    world
        .lab
        .kubectl(&[
            "rollout",
            "status",
            "-n",
            SYSTEM,
            &deployment,
            "--timeout=90s",
        ])
        .map(drop)
}
