//! What goes between the guest and a pod of the other node.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::libvirt::Domain;
use e2e::pods::{self, Family};
use e2e::{Lab, until};
use serde_json::Value;

use crate::MINUTE;
use crate::launcher::Nic;

const NAMESPACE: &str = "default";
const POD: &str = "peer";
const NODE: &str = "n1";

/// A pod on the node without DPDK.
pub(crate) struct Peer {
    v4: String,
    v6: String,
    netns: String,
}

impl Peer {
    /// Starts it.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        lab.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {POD}, namespace: {NAMESPACE}}}\nspec:\n  nodeName: {NODE}\n  \
             terminationGracePeriodSeconds: 1\n  automountServiceAccountToken: false\n  containers:\n  \
             - {{name: c, image: '{}', imagePullPolicy: Never, command: [sh, -c, 'mkdir -p /www; echo peer >/www/index.html; \
             exec httpd -f -p 80 -h /www']}}\n",
            lab.image()
        ))?;
        lab.wait_ready(NAMESPACE, POD, MINUTE)?;
        let pod = pods::one(lab, NAMESPACE, POD)?;
        Ok(Self {
            v4: pod.ip(Family::V4)?.to_owned(),
            v6: pod.ip(Family::V6)?.to_owned(),
            netns: e2e::sandbox(lab.node(NODE), &pod.uid)?.netns,
        })
    }

    /// Deletes it.
    pub(crate) fn remove(&self, lab: &Lab) -> Result<()> {
        lab.kubectl(&["delete", "pod", "-n", NAMESPACE, POD])
            .map(drop)
    }
}

/// The guest pings the pod, both families.
pub(crate) fn pings(domain: &Domain<'_>, peer: &Peer) -> Result<()> {
    for ip in [&peer.v4, &peer.v6] {
        domain.run(&format!("ping -q -c 2 -W 2 {ip}"))?;
    }
    Ok(())
}

/// The pod pings the guest, both families.
pub(crate) fn is_pinged(lab: &Lab, nic: &Nic) -> Result<()> {
    for v6 in [false, true] {
        let ip = nic.ip(v6)?;
        lab.pod_exec(NAMESPACE, POD, &["ping", "-q", "-c", "2", "-W", "2", ip])?;
    }
    Ok(())
}

/// The guest reads the pod's page by TCP, and sends it datagrams, which iperf3 counts: one in 20 may be lost on a busy machine.
pub(crate) fn datagrams(lab: &Lab, domain: &Domain<'_>, peer: &Peer) -> Result<()> {
    let page = domain.run(&format!("wget -q -O - http://{}/", peer.v4))?;
    ensure!(page == "peer", "the pod's page is {page:?}");
    let node = lab.node(NODE);
    let netns = format!("--net={}", peer.netns);
    let server = node.start(
        "iperf3",
        &[
            "nsenter",
            &netns,
            "iperf3",
            "--server",
            "--one-off",
            "--port",
            "5201",
        ],
    )?;
    let listens = ["nsenter", &netns, "ss", "-Hltn", "sport", "=", ":5201"];
    until("iperf3 to listen", Duration::from_secs(10), || {
        Ok((!node.exec(&listens)?.is_empty()).then_some(()))
    })?;
    let said = domain.run(&format!(
        "iperf3 --client {} --port 5201 --udp --bitrate 2M --length 1200 --time 2 --json",
        peer.v4
    ));
    server.terminate()?;
    let said = said?;
    let report: Value =
        serde_json::from_str(&said).with_context(|| format!("iperf3 printed no JSON: {said}"))?;
    let sum = &report["end"]["sum"];
    let (packets, lost) = (sum["packets"].as_u64(), sum["lost_packets"].as_u64());
    eprintln!("datagrams: {packets:?}, lost: {lost:?}");
    ensure!(
        packets.is_some_and(|packets| packets >= 100 && lost.unwrap_or(packets) * 20 <= packets),
        "of {packets:?} datagrams {lost:?} were lost: {said}"
    );
    Ok(())
}
