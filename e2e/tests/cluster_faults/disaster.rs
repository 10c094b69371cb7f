//! The northbound database, the record of all addresses, is lost while pods run.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::until;

use crate::world::{START, SYSTEM, World};

const FILE: &str = "/var/lib/ovn/ovnnb_db-1.db";
const SCHEMA: &str = "/usr/share/ovn/ovn-nb.ovsschema";

/// Its writer lives, and knows what it wrote: it writes it again.
pub(crate) fn emptied_under_its_writer(world: &World<'_>) -> Result<String> {
    world.start(&[("before", "n2")])?;
    let before = addresses(world)?;
    empty(world)?;
    until("all ports to be there again", START, || {
        let now = addresses(world)?;
        ensure!(now == before, "before {before:#?}, now {now:#?}");
        Ok(Some(()))
    })?;
    let took = world.connected()?;
    world.serves("n1", "before")?;
    world.start(&[("after", "n2")])?;
    world.serves("n1", "after")?;
    Ok(format!(
        "{} ports written again, flows seen {:.1} s later",
        before.len(),
        took.as_secs_f32()
    ))
}

/// Its writer starts and finds nothing, but pods run: it refuses to give out addresses, until it is told to take those that
/// the pods have.
pub(crate) fn emptied_then_rebuilt(world: &World<'_>) -> Result<String> {
    world.start(&[("before", "n2")])?;
    let before = addresses(world)?;
    scale(world, 0)?;
    empty(world)?;
    let bindings = ["--bare", "--columns=logical_port", "list", "Port_Binding"];
    until("the southbound database to follow", START, || {
        let left = world.lab.sbctl(&bindings)?;
        ensure!(left.is_empty(), "left: {left}");
        Ok(Some(()))
    })?;
    scale(world, 1)?;
    world.create(&[("waits", "n1")])?;
    let said = world.event("AllocationRefused")?;
    for part in ["Subnet default", "--rebuild", "No address is given out"] {
        ensure!(
            said.contains(part),
            "the Event does not say {part:?}: {said}"
        );
    }
    let given = addresses(world)?;
    ensure!(given.is_empty(), "addresses were given out: {given:?}");
    until("the Subnet to say that it is not Ready", START, || {
        let condition = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        let status =
            world
                .lab
                .kubectl(&["get", "subnet.iaas.yusur.io", "default", "-o", condition])?;
        ensure!(status == "False", "Ready is {status:?}");
        Ok(Some(()))
    })?;

    let arguments = "/spec/template/spec/containers/0/args";
    patch(
        world,
        &format!(r#"[{{"op": "add", "path": "{arguments}/-", "value": "--rebuild"}}]"#),
    )?;
    world.outboard_ready()?;
    until("the ports to be there again", START, || {
        let now = addresses(world)?;
        ensure!(before.is_subset(&now), "before {before:#?}, now {now:#?}");
        Ok(Some(()))
    })?;
    world.connected()?;
    world.serves("n1", "before")?;
    world.lab.wait_ready(&world.ns, "waits", START)?;
    world.serves("n2", "waits")?;
    let count = world.json(&["get", "-n", SYSTEM, "deployment", "cni-controller"])?;
    let arguments_now = count["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .map_or(0, Vec::len);
    patch(
        world,
        &format!(
            r#"[{{"op": "remove", "path": "{arguments}/{}"}}]"#,
            arguments_now - 1
        ),
    )?;
    world.outboard_ready()?;
    world.start(&[("after", "n2")])?;
    let now = addresses(world)?;
    ensure!(
        before.is_subset(&now),
        "after the flag was taken off: before {before:#?}, now {now:#?}"
    );
    world.connected()?;
    Ok(format!("{} ports as before; said: {said}", before.len()))
}

/// `name,addresses` of the ports in subnet `default`: of all pods' first interfaces.
fn addresses(world: &World<'_>) -> Result<BTreeSet<String>> {
    let columns = "--columns=name,addresses,external_ids";
    let condition = "external_ids:subnet=default";
    let find = ["--bare", "--format=csv", "--no-headings", columns, "find"];
    let text = world
        .lab
        .nbctl(&[&find[..], &["Logical_Switch_Port", condition]].concat())?;
    let first_two = |line: &str| line.splitn(3, ',').take(2).collect::<Vec<_>>().join(" ");
    Ok(text.lines().map(first_two).collect())
}

/// Puts a fresh database in its place.
fn empty(world: &World<'_>) -> Result<()> {
    let master = world.lab.node("n1");
    let server = master.process("nb");
    server.kill9()?;
    master.exec(&["rm", FILE])?;
    master.exec(&["ovsdb-tool", "create", FILE, SCHEMA])?;
    server.restart()
}

fn scale(world: &World<'_>, replicas: u8) -> Result<()> {
    let count = format!("--replicas={replicas}");
    world.lab.kubectl(&[
        "scale",
        "-n",
        SYSTEM,
        "deployment",
        "cni-controller",
        &count,
    ])?;
    let selector = "app.kubernetes.io/name=cni-controller";
    until("the pods of cni-controller", START, || {
        let names = world
            .lab
            .kubectl(&["get", "pods", "-n", SYSTEM, "-l", selector, "-o", "name"])?;
        Ok((names.lines().count() == usize::from(replicas)).then_some(()))
    })
}

fn patch(world: &World<'_>, operations: &str) -> Result<()> {
    let patch = [
        "patch",
        "-n",
        SYSTEM,
        "deployment",
        "cni-controller",
        "--type=json",
        "-p",
        operations,
    ];
    world.lab.kubectl(&patch).map(drop)
}
