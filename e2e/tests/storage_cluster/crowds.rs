//! Many pods with volumes, made and moved by controllers of Kubernetes.

use anyhow::{Result, ensure};
use e2e::until;
use e2e::volumes::{Claim, Mode, User};
use serde_json::{Value, json};

use crate::copies::LOG;
use crate::world::{LONG, World, file};

/// Pods with a generic ephemeral volume each; half of them on either node.
const DOZEN: usize = 12;

/// Volumes that come and go with their pods.
pub(crate) fn ephemeral(world: &World<'_>) -> Result<String> {
    let names: Vec<String> = (0..DOZEN).map(|i| format!("short-{i}")).collect();
    for (i, name) in names.iter().enumerate() {
        let node = ["n1", "n2"][i % 2];
        let user = User::new(name, "scratch", Mode::Filesystem).on(node);
        let mut spec = user.spec(world.lab);
        let template = Claim::new("", "16Mi", Mode::Filesystem).spec();
        spec["volumes"] =
            json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": template}}}]);
        world.apply(("v1", "Pod"), name, &json!({"app": "short"}), &spec)?;
    }
    for name in &names {
        world.ready(name)?;
    }
    let mut sums = Vec::new();
    for name in &names {
        sums.push(world.fill(name, file(Mode::Filesystem), 2)?);
    }
    for (name, md5) in names.iter().zip(&sums) {
        world.holds(name, file(Mode::Filesystem), 2, md5)?;
    }
    ensure!(
        world.all_volumes()?.len() == DOZEN,
        "{DOZEN} pods have the volumes {:?}",
        world.all_volumes()?
    );
    world.lab.kubectl(&[
        "delete",
        "pods",
        "-n",
        &world.ns,
        "-l",
        "app=short",
        "--timeout=120s",
    ])?;
    until("the ephemeral volumes to go with their pods", LONG, || {
        let left = world.all_volumes()?;
        ensure!(left.is_empty(), "{left:?} are there");
        Ok(Some(()))
    })?;
    Ok(format!("{DOZEN} pods, each with 2 MiB of its own"))
}

/// A StatefulSet `db` with a volume for each pod; where it can, it is on `prefer`.
pub(crate) fn stateful_set(
    world: &World<'_>,
    replicas: u32,
    prefer: Option<&str>,
    user: &User<'_>,
) -> Result<()> {
    let mut pod = user.spec(world.lab);
    pod["volumes"] = json!([]);
    if let Some(node) = prefer {
        let is = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        let preference = json!([{"weight": 100, "preference": {"matchExpressions": [is]}}]);
        pod["affinity"] = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preference}});
    }
    let spec: Value = json!({
        "replicas": replicas, "serviceName": "db", "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": pod},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": Claim::new("", "32Mi", Mode::Filesystem).spec()}],
    });
    world.apply(("apps/v1", "StatefulSet"), "db", &json!({}), &spec)?;
    rolled(world)
}

fn rolled(world: &World<'_>) -> Result<()> {
    world.lab.kubectl(&[
        "rollout",
        "status",
        "-n",
        &world.ns,
        "statefulset/db",
        "--timeout=120s",
    ])?;
    until("the pods of the StatefulSet", LONG, || {
        let wanted = world.get(&["statefulset", "db"], "{.spec.replicas}")?;
        let ready = world.get(&["statefulset", "db"], "{.status.readyReplicas}")?;
        ensure!(
            ready == wanted || (wanted == "0" && ready.is_empty()),
            "{ready} of {wanted} are ready"
        );
        Ok(Some(()))
    })
}

/// Data belong to the ordinal, whatever becomes of the pod.
pub(crate) fn stateful(world: &World<'_>) -> Result<String> {
    stateful_set(world, 2, None, &User::new("db", "data", Mode::Filesystem))?;
    let at = file(Mode::Filesystem);
    let sums = [world.fill("db-0", at, 4)?, world.fill("db-1", at, 4)?];
    ensure!(sums[0] != sums[1], "random data are equal");
    let scale = |replicas: u32| -> Result<()> {
        world.lab.kubectl(&[
            "scale",
            "-n",
            &world.ns,
            "statefulset/db",
            &format!("--replicas={replicas}"),
        ])?;
        rolled(world)
    };
    let same = || -> Result<()> {
        world.holds("db-0", at, 4, &sums[0])?;
        world.holds("db-1", at, 4, &sums[1])
    };
    world.delete(&["pod/db-0"])?;
    rolled(world)?;
    same()?;
    scale(1)?;
    world.wait("pod/db-1", "delete", LONG)?;
    scale(3)?;
    same()?;
    ensure!(
        world.sh("db-2", "ls /data | grep -v lost+found | wc -l")? == "0",
        "a new ordinal has data"
    );
    Ok("db-0 deleted, 2 → 1 → 3 pods: each ordinal has its data".into())
}

/// A node is drained: its pods go on on the other one with all that they had written.
pub(crate) fn drained(world: &World<'_>) -> Result<String> {
    stateful_set(
        world,
        3,
        Some("n2"),
        &User::new("db", "data", Mode::Filesystem).writing(LOG),
    )?;
    let names = ["db-0", "db-1", "db-2"];
    let mut written = Vec::new();
    for name in names {
        world.advance(name, 20)?;
        written.push(world.stop_writer(name)?);
    }
    let before = world.pods("app=db")?;
    ensure!(
        before.iter().all(|(_, node)| node == "n2"),
        "not all are on n2: {before:?}"
    );
    world.lab.kubectl(&[
        "drain",
        "n2",
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--timeout=120s",
    ])?;
    rolled(world)?;
    let after = world.pods("app=db")?;
    ensure!(
        after.iter().all(|(_, node)| node == "n1"),
        "not all are on n1: {after:?}"
    );
    let mut blocks = 0;
    for (name, written) in names.iter().zip(written) {
        blocks += world.verify(name, LOG, written)?;
    }
    world.lab.kubectl(&["uncordon", "n2"])?;
    Ok(format!(
        "3 pods moved, {blocks} blocks read on the other node"
    ))
}
