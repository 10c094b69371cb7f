//! Two claim what one can have: the younger one has it, and the older one's late end takes nothing away.

use anyhow::{Context as _, Result, ensure};
use e2e::plugin::{self, SecondSandbox};
use e2e::{Delegate, card, pods, sandbox, until};

use crate::world::{RETURN, World};

/// The function that both pods ask for: nobody else has so high a one.
const FUNCTION: u32 = 29;

/// The runtime makes a second sandbox of a pod before it ends the first.
pub(crate) fn two_of_one_pod(world: &World<'_>) -> Result<String> {
    let host = world.host();
    world.start(&[("twice", host.name()), ("friend", "m")])?;
    let pod = pods::one(world.lab, &world.ns, "twice")?;
    let friend = pods::one(world.lab, &world.ns, "friend")?;
    let first = sandbox(host, &pod.uid)?;
    let second = SecondSandbox::create(host)?;
    let result = second
        .call("ADD", &pod)
        .context("ADD of the second sandbox")?;
    ensure!(
        plugin::addresses(&result) == pod.ips,
        "the second sandbox got other addresses than {:?}: {result}",
        pod.ips
    );
    let reaches = || {
        friend
            .ips
            .iter()
            .try_for_each(|ip| second.fetch(ip, "friend"))
    };
    reaches()?;
    only(world, &pod.uid, second.id())?;
    plugin::call(host, "DEL", &first, &pod).context("late DEL of the first sandbox")?;
    reaches()?;
    only(world, &pod.uid, second.id())?;
    second
        .call("CHECK", &pod)
        .context("CHECK of the second sandbox")?;
    second
        .call("DEL", &pod)
        .context("DEL of the second sandbox")?;
    let left = plugin::interfaces(world.dpu(), &pod.uid)?;
    ensure!(left.is_empty(), "the DPU still has {left:?}");
    Ok("the second sandbox kept its network through the first one's DEL".into())
}

/// kubelet gives a pod's device to the next pod before the runtime has ended the first one's sandbox.
pub(crate) fn function_taken_over(world: &World<'_>) -> Result<String> {
    let (ns, host) = (world.ns.as_str(), world.host());
    let device = format!("vf{FUNCTION}");
    world.lab.apply(&format!(
        "apiVersion: iaas.yusur.io/v1\nkind: Subnet\nmetadata: {{name: {ns}}}\n\
         spec: {{cidrs: [10.252.0.0/24], namespaces: [{ns}]}}\n"
    ))?;
    let definition = |name: &str, device: &str| {
        format!(
            "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {{name: {name}, namespace: {ns}}}\n\
             spec:\n  config: '{{\"cniVersion\": \"1.0.0\", \"name\": \"{name}\", \"type\": \"outboard\", \"subnet\": \"{ns}\"{device}}}'\n---\n"
        )
    };
    let pinned = definition("pinned", &format!(", \"deviceID\": \"{device}\""));
    world.lab.apply(&(pinned + &definition("loose", "")))?;
    for (name, node, network) in [
        ("old", host.name(), "pinned"),
        ("new", host.name(), "pinned"),
        ("peer", "m", "loose"),
    ] {
        let annotated = world.pod(name, node).replace(
            "metadata: {",
            &format!("metadata: {{annotations: {{k8s.v1.cni.cncf.io/networks: {network}}}, "),
        );
        world.lab.apply(&annotated)?;
    }
    for name in ["old", "new", "peer"] {
        world.lab.wait_ready(ns, name, crate::world::START)?;
    }
    let delegate = |pod: &str, network: &str| Delegate::new(world.lab, ns, pod, "net1", network);
    let (old, new, peer) = (
        delegate("old", "pinned")?,
        delegate("new", "pinned")?,
        delegate("peer", "loose")?,
    );
    let theirs = peer.add().context("ADD of the peer")?;
    let address = plugin::addresses(&theirs).join("");
    let first = old.add().context("ADD of the old pod")?;
    ping(world, "old", &address)?;
    ensure!(
        !card::functions_at_home(host)?.contains(&FUNCTION),
        "{device} is at home"
    );

    let second = new.add().context("ADD of the new pod")?;
    ping(world, "new", &address)?;
    ensure!(
        !has_net1(world, "old")?,
        "the old pod has its function still"
    );
    old.del(Some(&first)).context("late DEL of the old pod")?;
    ping(world, "new", &address)?;

    new.del(Some(&second)).context("DEL of the new pod")?;
    peer.del(Some(&theirs))?;
    until(&format!("{device} to be at home"), RETURN, || {
        Ok(card::functions_at_home(host)?
            .contains(&FUNCTION)
            .then_some(()))
    })?;
    world.delete("old")?;
    world.delete("new")?;
    world.delete("peer")?;
    world
        .lab
        .kubectl(&["delete", "subnet.iaas.yusur.io", ns, "--timeout=60s"])?;
    Ok(format!(
        "{device} went from one pod to the next, and the late DEL left it there"
    ))
}

fn ping(world: &World<'_>, from: &str, to: &str) -> Result<()> {
    let argv = ["ping", "-c", "1", "-W", "2", "-I", "net1", to];
    until(&format!("{to} to answer net1 of {from}"), RETURN, || {
        world.lab.pod_exec(&world.ns, from, &argv).map(Some)
    })
    .map(drop)
}

fn has_net1(world: &World<'_>, pod: &str) -> Result<bool> {
    let links = world.lab.pod_exec(&world.ns, pod, &["ip", "-o", "link"])?;
    Ok(links.contains("net1"))
}

/// On the DPU the pod has one interface: that sandbox's.
fn only(world: &World<'_>, uid: &str, id: &str) -> Result<()> {
    let found = plugin::interfaces(world.dpu(), uid)?;
    let wanted = format!("{}/{id}", world.pair().host);
    ensure!(
        found == [wanted.as_str()],
        "the DPU has interfaces of sandboxes {found:?}, not of {wanted}"
    );
    Ok(())
}
