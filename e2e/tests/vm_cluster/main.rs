//! VMs as KubeVirt runs them, on two nodes of a real cluster: their interfaces are vhost-user ports of Open vSwitch with DPDK, or taps where
//! nodes have none; a data disk is a vhost-user-blk socket of its volume's storage daemon. VMs migrate from node to node.
//!
//! The lab has no KubeVirt, so the test is what KubeVirt's parts are to ours: Multus (executes the plugin), virt-controller (renders
//! the launcher's pod, writes kubevirt.io/network-info) and virt-launcher (hook manager, libvirt). Everything else is real: the
//! plugin, the shim in its container, storage with its sidecars, libvirt, QEMU, the guest's kernel, OVN.

#[path = "../../../shim/tests/hooks/launcher.rs"]
mod manager;

mod boot;
mod disk;
mod launcher;
mod machine;
mod migration;
mod objects;
mod traffic;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::libvirt::{Boot, Domain};
use e2e::{Lab, LabConfig, Node, SiteConfig, leaks, until};

use launcher::{Launcher, Plug, Spec};
use traffic::Peer;

/// The node of the VM with a disk.
const NODE: &str = "n2";
const PAGES: &str = "/proc/sys/vm/nr_hugepages";
const MINUTE: Duration = Duration::from_secs(60);

/// A lab at a time: the machine is small.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn vms_have_the_network_and_the_disk_of_their_pods_migrate_and_leave_nothing() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let pages = std::fs::read_to_string(PAGES)?;
    let lab = Lab::up(&LabConfig {
        site: SiteConfig {
            dpdk: vec!["n1".into(), "n2".into()],
            ..SiteConfig::default()
        },
        storage: true,
        ..LabConfig::default()
    })?;
    let story = || {
        objects::apply(&lab)?;
        let clock = Clock::start();
        let peer = Peer::start(&lab)?;
        boot::story(&lab, &peer, &clock)?;
        disk_story(&lab, &peer, &clock)?;
        migration::story(&lab, Plug::Socket, &peer, &clock)?;
        peer.remove(&lab)?;
        leaks::wait_for_none(&lab, MINUTE)?;
        clock.say("nothing is left");
        anyhow::Ok(())
    };
    story().with_context(|| evidence(&lab))?;
    drop(lab);
    let after = std::fs::read_to_string(PAGES)?;
    ensure!(
        after == pages,
        "the machine had {pages} huge pages before, and has {after}"
    );
    Ok(())
}

#[test]
fn without_dpdk_vms_have_taps_and_migrate() -> Result<()> {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::up(&LabConfig {
        vms: true,
        ..LabConfig::default()
    })?;
    let story = || {
        objects::kinds(&lab)?;
        objects::examples(&lab, &["network", "nic"])?;
        let clock = Clock::start();
        let peer = Peer::start(&lab)?;
        migration::story(&lab, Plug::Tap, &peer, &clock)?;
        peer.remove(&lab)?;
        leaks::wait_for_none(&lab, MINUTE)?;
        clock.say("nothing is left");
        anyhow::Ok(())
    };
    story().with_context(|| evidence(&lab))
}

/// Says what is done, with the time.
struct Clock(Instant);

impl Clock {
    fn start() -> Self {
        Self(Instant::now())
    }

    fn say(&self, what: &str) {
        eprintln!("[{:5.1} s] {what}", self.0.elapsed().as_secs_f32());
    }
}

fn disk_story(lab: &Lab, peer: &Peer, clock: &Clock) -> Result<()> {
    let vm = objects::instance(lab, "data-disk")?;
    let disk = disk::Disk::of(lab)?;
    let spec = Spec {
        name: "virt-launcher-data-disk-first",
        node: NODE,
        plug: Plug::Socket,
        migration: None,
    };
    let launcher = Launcher::start(lab, &vm, &spec)?;
    let nic = launcher.plug()?;
    clock.say("the launcher's pod is plugged");

    let node = lab.node(NODE);
    let libvirt = launcher.libvirt()?;
    clock.say("libvirt runs");
    let xml = {
        let boot = Boot::on(node, &["/usr/bin/iperf3".into()], &[])?;
        let plain = machine::domain(&vm, &boot, &disk::xml("data", ""));
        launcher.define(&libvirt, &plain, &vm)?
    };
    machine::is_bound(&xml, &nic, Plug::Socket)?;
    disk::is_bound(&xml, "data", disk::CLAIM)?;
    let name = machine::name(&vm);
    let start = || Domain::create(&libvirt, &name, &xml, machine::PORT, machine::CONSOLE);
    let domain = start()?;
    clock.say("the guest is up");

    domain.run(&machine::address(&nic)?)?;
    traffic::pings(&domain, peer).context("at first")?;
    traffic::is_pinged(lab, &nic)?;
    traffic::page(&domain, peer)?;
    traffic::datagrams(lab, &domain, peer)?;
    launcher.check(&nic)?;
    clock.say("guest and pod of the other node reach each other");

    node.process("ovs-vswitchd").restart()?;
    let cut = Instant::now();
    until("the guest after a restart of ovs-vswitchd", MINUTE, || {
        traffic::pings(&domain, peer).map(Some)
    })?;
    clock.say(&format!(
        "reachable again {:.1} s after ovs-vswitchd was restarted",
        cut.elapsed().as_secs_f32()
    ));

    let said = disk.outlives_the_engine(&domain)?;
    clock.say(&format!("outboard-engine was restarted: {said}"));
    let last = disk.dies(&domain)?;
    domain.destroy()?;
    drop(domain);
    // Until the next daemon's socket may be used.
    let domain = until("the machine's next start", MINUTE, || start().map(Some))?;
    let said = disk.holds(&domain, last)?;
    clock.say(&format!("the machine is started again: {said}"));

    domain.destroy()?;
    launcher.end(&libvirt)?;
    drop(domain);
    drop(libvirt);
    launcher::leaves_nothing(lab, NODE)?;
    disk::leaves_nothing(lab)?;
    clock.say("the VM with a disk has left nothing");
    Ok(())
}

/// What the parts said last.
fn evidence(lab: &Lab) -> String {
    let on_nodes: String = lab.nodes().iter().map(evidence_of).collect();
    let pods = ["get", "pods", "-A", "-o", "wide"];
    let shims = [
        "logs",
        "-n",
        launcher::NAMESPACE,
        "-l",
        "kubevirt.io=virt-launcher",
        "-c",
        launcher::SIDECAR,
        "--prefix",
    ];
    let cni = [
        "logs",
        "-n",
        "outboard-system",
        "-l",
        "app.kubernetes.io/name=cni-node",
        "-c",
        "cni-node",
        "--tail=30",
        "--prefix",
    ];
    let controller = [
        "logs",
        "-n",
        "outboard-system",
        "-l",
        "app.kubernetes.io/name=cni-controller",
        "--tail=30",
    ];
    let rows = [
        "--columns=name,options,external_ids,up",
        "list",
        "Logical_Switch_Port",
    ];
    format!(
        "{on_nodes}--- pods\n{}\n--- shims\n{}\n--- cni-node\n{}\n--- cni-controller\n{}\n--- ports\n{}",
        lab.kubectl(&pods).unwrap_or_default(),
        lab.kubectl(&shims).unwrap_or_default(),
        lab.kubectl(&cni).unwrap_or_default(),
        lab.kubectl(&controller).unwrap_or_default(),
        lab.nbctl(&rows).unwrap_or_default(),
    )
}

fn evidence_of(node: &Node) -> String {
    let tail = |name: &str| {
        let log = node.dir().join(format!("{name}.log"));
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(20)..];
        format!("--- {}\n{}\n", log.display(), last.join("\n"))
    };
    let ports = node.exec(&[
        "ovs-vsctl",
        "--columns=name,type,options,error,status,external_ids,mtu",
        "list",
        "interface",
    ]);
    let tails = ["ovs-vswitchd", "libvirtd", "virtlogd"].map(tail).concat();
    format!(
        "{tails}--- interfaces of {}\n{}\n",
        node.name(),
        ports.unwrap_or_default()
    )
}
