//! Lives of pods: names used again, sandboxes that overlap, addresses that run out and come back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::plugin::{self, SecondSandbox};
use e2e::{pods, sandbox, until};

use crate::world::{Paused, START, World};

/// A StatefulSet's pod is made anew on another node while the old one's node does not answer: its sandbox is still there.
pub(crate) fn moved(world: &World<'_>) -> Result<String> {
    stateful(world, "")?;
    world.lab.kubectl(&["cordon", "n1"])?;
    stateful_replicas(world, 1)?;
    let old = db(world, None)?;
    ensure!(old.node == "n2", "db-0 is on {}", old.node);
    world.lab.kubectl(&["uncordon", "n1"])?;
    world.lab.kubectl(&["cordon", "n2"])?;
    let old_sandbox = sandbox(world.lab.node("n2"), &old.uid)?;
    let deaf = Paused::process(&world.lab.node("n2").process("kubelet"))?;
    force_delete(world)?;
    let new = db(world, Some(&old.uid))?;
    ensure!(new.node == "n1", "db-0 is on {}", new.node);
    ensure!(
        sandbox(world.lab.node("n2"), &old.uid).is_ok(),
        "the old sandbox is gone: the case shows nothing"
    );
    // Both nodes reach the new one, not the one that still has the name.
    world.serves("n1", "db-0")?;
    world.serves("n2", "db-0")?;
    drop(deaf);
    gone(world, "n2", &old_sandbox.id)?;
    world.lab.kubectl(&["uncordon", "n2"])?;
    world.serves("n1", "db-0")?;
    world.serves("n2", "db-0")?;
    Ok("db-0 served from n1 before and after the late DEL on n2".into())
}

/// The same on one node: kubelet was away while the pod was replaced.
pub(crate) fn recreated(world: &World<'_>) -> Result<String> {
    stateful(world, "nodeSelector: {kubernetes.io/hostname: n2}")?;
    stateful_replicas(world, 1)?;
    let old = db(world, None)?;
    let old_sandbox = sandbox(world.lab.node("n2"), &old.uid)?;
    let away = Paused::process(&world.lab.node("n2").process("kubelet"))?;
    force_delete(world)?;
    until("the pod's port to be the new one's", START, || {
        let new = pods::one(world.lab, &world.ns, "db-0")?;
        let port = format!("{}/db-0/default", world.ns);
        let uid = world
            .lab
            .nbctl(&["get", "Logical_Switch_Port", &port, "external_ids:uid"])?;
        Ok((new.uid != old.uid && uid.trim_matches('"') == new.uid).then_some(()))
    })?;
    drop(away);
    db(world, Some(&old.uid))?;
    gone(world, "n2", &old_sandbox.id)?;
    world.serves("n1", "db-0")?;
    world.serves("n2", "db-0")?;
    Ok("db-0 served under its new UID".into())
}

/// The runtime makes a second sandbox of the same pod before it ends the first: the late DEL takes nothing away.
pub(crate) fn second_sandbox(world: &World<'_>) -> Result<String> {
    world.start(&[("twice", "n2"), ("friend", "n1")])?;
    let pod = pods::one(world.lab, &world.ns, "twice")?;
    let friend = pods::one(world.lab, &world.ns, "friend")?;
    let node = world.lab.node("n2");
    let first = sandbox(node, &pod.uid)?;
    let second = SecondSandbox::create(node)?;

    let result = second
        .call("ADD", &pod)
        .context("ADD of the second sandbox")?;
    ensure!(
        plugin::addresses(&result) == pod.ips,
        "the second sandbox got other addresses than {:?}: {result}",
        pod.ips
    );
    for ip in &friend.ips {
        second.fetch(ip, "friend")?;
    }
    let interfaces = plugin::interfaces(node, &pod.uid)?;
    ensure!(
        interfaces == [second.id()],
        "interfaces of sandboxes {interfaces:?}"
    );

    plugin::call(node, "DEL", &first, &pod).context("late DEL of the first sandbox")?;
    for ip in &friend.ips {
        second.fetch(ip, "friend")?;
    }
    let interfaces = plugin::interfaces(node, &pod.uid)?;
    ensure!(
        interfaces == [second.id()],
        "after the late DEL interfaces of {interfaces:?}"
    );
    second
        .call("CHECK", &pod)
        .context("CHECK of the second sandbox")?;
    second
        .call("DEL", &pod)
        .context("DEL of the second sandbox")?;
    ensure!(
        plugin::interfaces(node, &pod.uid)?.is_empty(),
        "an interface is left"
    );
    Ok("the second sandbox kept its network through the first one's DEL".into())
}

/// All addresses of a small Subnet are taken: the next pod waits, is told why, and starts with the first one that is freed.
pub(crate) fn pool_full(world: &World<'_>) -> Result<String> {
    let ns = world.ns.as_str();
    world.lab.apply(&format!(
        "apiVersion: iaas.yusur.io/v1\nkind: Subnet\nmetadata: {{name: {ns}}}\nspec: \
         {{cidrs: [10.251.0.0/29], namespaces: [{ns}], primary: true}}\n"
    ))?;
    world.lab.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=30s",
        "subnet.iaas.yusur.io",
        ns,
    ])?;
    let names: Vec<String> = (1..=5).map(|i| format!("in-{i}")).collect();
    let five: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "n2")).collect();
    world.start(&five)?;
    let freed = pods::one(world.lab, ns, "in-3")?;
    world.create(&[("waits", "n1")])?;
    let said = world.event("NoAddressLeft")?;
    for part in [&format!("Subnet {ns}"), "delete pods", "larger Subnet"] {
        ensure!(
            said.contains(part),
            "the Event does not say {part:?}: {said}"
        );
    }
    let status = world.json(&["get", "subnet.iaas.yusur.io", ns])?;
    ensure!(
        status["status"]["v4"]["available"] == 0,
        "the Subnet's status is {}",
        status["status"]
    );
    world.lab.kubectl(&["delete", "pod", "-n", ns, "in-3"])?;
    world.lab.wait_ready(ns, "waits", START)?;
    let last = pods::one(world.lab, ns, "waits")?;
    ensure!(
        last.ips == freed.ips,
        "it has {:?}, freed was {:?}",
        last.ips,
        freed.ips
    );
    world.serves("n2", "waits")?;
    world.lab.kubectl(&["delete", "pods", "-n", ns, "--all"])?;
    world
        .lab
        .kubectl(&["delete", "subnet.iaas.yusur.io", ns, "--timeout=60s"])?;
    Ok(format!("said: {said}"))
}

/// Pods of a Job that are done keep their object and give back their addresses.
pub(crate) fn completed(world: &World<'_>) -> Result<String> {
    world.lab.apply(&format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: done, namespace: {}}}\nspec:\n  completions: 3\n  parallelism: 3\n  \
         template:\n    spec:\n      restartPolicy: Never\n      automountServiceAccountToken: false\n      \
         containers: [{{name: c, image: {}, imagePullPolicy: Never, command: ['true']}}]\n",
        world.ns,
        world.lab.image()
    ))?;
    world.lab.kubectl(&[
        "wait",
        "-n",
        &world.ns,
        "--for=condition=Complete",
        "--timeout=90s",
        "job/done",
    ])?;
    until("the ports of completed pods to go", START, || {
        Ok(world.ports()?.is_empty().then_some(()))
    })?;
    let pods = world.pods()?;
    ensure!(
        pods.len() == 3 && pods.iter().all(|pod| pod.completed),
        "the pods are {pods:?}"
    );
    e2e::leaks::wait_for_none(world.lab, Duration::from_secs(30))?;
    Ok("3 completed pods, no port".into())
}

/// A StatefulSet `db` without pods yet.
fn stateful(world: &World<'_>, selector: &str) -> Result<()> {
    let spec = format!("{selector}\n{}", world.pod_spec()).replace('\n', "\n      ");
    world
        .lab
        .apply(&format!(
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: db, namespace: {}}}\nspec:\n  replicas: 0\n  serviceName: db\n  \
             selector: {{matchLabels: {{app: db}}}}\n  template:\n    metadata: {{labels: {{app: db}}}}\n    spec:\n      {}\n",
            world.ns,
            spec.trim_end()
        ))
        .map(drop)
}

fn stateful_replicas(world: &World<'_>, count: u8) -> Result<()> {
    let replicas = format!("--replicas={count}");
    world
        .lab
        .kubectl(&["scale", "-n", &world.ns, "statefulset", "db", &replicas])
        .map(drop)
}

fn force_delete(world: &World<'_>) -> Result<()> {
    let delete = [
        "delete",
        "pod",
        "-n",
        &world.ns,
        "db-0",
        "--grace-period=0",
        "--force",
    ];
    world.lab.kubectl(&delete).map(drop)
}

/// Pod `db-0` once it is Ready and not the one with the UID `other`.
fn db(world: &World<'_>, other: Option<&str>) -> Result<pods::Pod> {
    until("another db-0", START, || {
        let pod = pods::one(world.lab, &world.ns, "db-0")?;
        Ok((Some(pod.uid.as_str()) != other).then_some(()))
    })?;
    world.lab.wait_ready(&world.ns, "db-0", START)?;
    pods::one(world.lab, &world.ns, "db-0")
}

/// Waits until a sandbox's tasks have ended and its interface is gone.
fn gone(world: &World<'_>, node: &str, id: &str) -> Result<()> {
    let node = world.lab.node(node);
    until(&format!("the end of the old sandbox {id}"), START, || {
        let tasks = node.exec(&["ctr", "-n", "k8s.io", "tasks", "list"])?;
        let find = format!("external_ids:sandbox={id}");
        let rows = node.exec(&[
            "ovs-vsctl",
            "--bare",
            "--columns=name",
            "find",
            "Interface",
            &find,
        ])?;
        ensure!(
            !tasks.contains(id) && rows.is_empty(),
            "tasks:\n{tasks}\ninterface: {rows}"
        );
        Ok(Some(()))
    })
}
