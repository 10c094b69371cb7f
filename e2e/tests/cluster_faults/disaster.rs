//! The northbound database, the record of all addresses, is lost while pods run.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::{Delegate, until};

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
/// the pods have. Of a second interface without network-status (there is no Multus here) the pod's node alone knows them.
pub(crate) fn emptied_then_rebuilt(world: &World<'_>) -> Result<String> {
    world.start(&[("before", "n2")])?;
    let second = SecondInterface::plug(world)?;
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
    let given = second.ports()?;
    ensure!(given.is_empty(), "second interfaces got addresses: {given}");
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
    second.is_as_before()?;
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
    second.is_as_before()?;
    second.unplug()?;
    Ok(format!("{} ports as before; said: {said}", before.len()))
}

/// A pod's net1 in a Subnet of its own, with other addresses than an empty Subnet would give out first.
struct SecondInterface<'a> {
    world: &'a World<'a>,
    net1: Delegate<'a>,
    /// What the database said of its port: addresses.
    before: String,
}

impl<'a> SecondInterface<'a> {
    fn plug(world: &'a World<'a>) -> Result<Self> {
        let ns = world.ns.as_str();
        world.lab.apply(&format!(
            "apiVersion: iaas.yusur.io/v1\nkind: Vpc\nmetadata: {{name: {ns}}}\nspec: {{}}\n---\n\
             apiVersion: iaas.yusur.io/v1\nkind: Subnet\nmetadata: {{name: {ns}}}\n\
             spec: {{vpc: {ns}, cidrs: [10.252.0.0/24, 'fd00:10:252::/64'], namespaces: [{ns}]}}\n---\n\
             apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {{name: second, namespace: {ns}}}\n\
             spec: {{config: '{{\"cniVersion\": \"1.0.0\", \"name\": \"second\", \"type\": \"outboard\", \"subnet\": \"{ns}\"}}'}}\n"
        ))?;
        let annotated = |name: &str| {
            let notes = "annotations: {k8s.v1.cni.cncf.io/networks: second}, labels:";
            world.pod(name, "n2").replace("labels:", notes)
        };
        for name in ["first", "two"] {
            world.lab.apply(&annotated(name))?;
            world.lab.wait_ready(ns, name, START)?;
        }
        let net1 = Delegate::new(world.lab, ns, "two", "net1", "second")?;
        net1.add().context("ADD of the second interface")?;
        world
            .lab
            .kubectl(&["delete", "pod", "-n", ns, "first", "--timeout=60s"])?;
        let mut second = Self {
            world,
            net1,
            before: String::new(),
        };
        let published = [
            "--bare",
            "--columns=external_ids",
            "find",
            "Chassis_Private",
            "name=n2",
        ];
        until("n2 to publish the interface", START, || {
            let said = world.lab.sbctl(&published)?;
            ensure!(said.contains(&format!("{ns}/two/")), "it says {said}");
            Ok(Some(()))
        })?;
        second.before = until("its port to be the only one", START, || {
            let ports = second.ports()?;
            Ok((ports.lines().count() == 1).then_some(ports))
        })?;
        ensure!(
            !second.before.contains(" 10.252.0.2 "),
            "{}: a new address would be the same, the case would show nothing",
            second.before
        );
        Ok(second)
    }

    /// The addresses of all ports of the Subnet's pods.
    fn ports(&self) -> Result<String> {
        let condition = format!("external_ids:subnet={}", self.world.ns);
        let find = [
            "--bare",
            "--columns=addresses",
            "find",
            "Logical_Switch_Port",
        ];
        let text = self
            .world
            .lab
            .nbctl(&[&find[..], &["external_ids:role=pod", &condition]].concat())?;
        let lines = text.lines().filter(|line| !line.is_empty());
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// The port has the addresses that the interface has in the pod, and OVN says that it is up.
    fn is_as_before(&self) -> Result<()> {
        let now = self.ports()?;
        ensure!(now == self.before, "before {:?}, now {now:?}", self.before);
        let port = format!("{}/two/{}/net1", self.world.ns, self.world.ns);
        until("the second interface to be up", START, || {
            let up = self
                .world
                .lab
                .sbctl(&["get", "Port_Binding", &port, "up"])?;
            Ok((up == "true").then_some(()))
        })
    }

    fn unplug(&self) -> Result<()> {
        let (lab, ns) = (self.world.lab, self.world.ns.as_str());
        self.net1.del(None)?;
        lab.kubectl(&["delete", "pod", "-n", ns, "two", "--timeout=60s"])?;
        for what in ["subnet.iaas.yusur.io", "vpc.iaas.yusur.io"] {
            lab.kubectl(&["delete", what, ns, "--timeout=60s"])?;
        }
        Ok(())
    }
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
