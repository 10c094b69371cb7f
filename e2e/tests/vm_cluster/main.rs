//! A VM as KubeVirt runs it, on two nodes of a real cluster: its interface is a vhost-user port of Open vSwitch with DPDK, its data disk
//! a vhost-user-blk socket of its volume's storage daemon.
//!
//! The lab has no KubeVirt, so the test is what KubeVirt's parts are to ours: Multus (executes the plugin), virt-controller (renders
//! the launcher's pod, writes kubevirt.io/network-info) and virt-launcher (hook manager, libvirt). Everything else is real: the
//! plugin, the shim in its container, storage with its sidecars, libvirt, QEMU, the guest's kernel, OVN.

#[path = "../../../shim/tests/hooks/launcher.rs"]
mod manager;

mod disk;
mod launcher;
mod machine;
mod objects;
mod traffic;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::libvirt::{Boot, Domain, Libvirt};
use e2e::{Lab, LabConfig, SiteConfig, leaks, until};

use launcher::Launcher;

/// The node whose Open vSwitch has DPDK; the other one is `n1`.
const NODE: &str = "n2";
const PAGES: &str = "/proc/sys/vm/nr_hugepages";
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_vm_has_the_network_and_the_disk_of_its_pod_and_leaves_nothing() -> Result<()> {
    let pages = std::fs::read_to_string(PAGES)?;
    let lab = Lab::up(&LabConfig {
        site: SiteConfig {
            dpdk: vec![NODE.into()],
            ..SiteConfig::default()
        },
        storage: true,
        ..LabConfig::default()
    })?;
    story(&lab).with_context(|| evidence(&lab))?;
    drop(lab);
    let after = std::fs::read_to_string(PAGES)?;
    ensure!(
        after == pages,
        "the machine had {pages} huge pages before, and has {after}"
    );
    Ok(())
}

fn story(lab: &Lab) -> Result<()> {
    let vm = objects::apply(lab)?;
    let peer = traffic::Peer::start(lab)?;
    let started = Instant::now();
    let say = |what: &str| eprintln!("[{:5.1} s] {what}", started.elapsed().as_secs_f32());

    let disk = disk::Disk::of(lab)?;
    let launcher = Launcher::start(lab, &vm)?;
    let nic = launcher.plug()?;
    say("the launcher's pod is plugged");

    let node = lab.node(NODE);
    let libvirt = Libvirt::start(node, &launcher.volume())?;
    say("libvirt runs");
    let xml = {
        let boot = Boot::on(node, &["/usr/bin/iperf3".into()], &[])?;
        let plain = machine::domain(&vm, &boot);
        launcher.define(&libvirt, &plain, &vm)?
    };
    machine::is_bound(&xml, &nic)?;
    disk::is_bound(&xml)?;
    let domain = Domain::create(
        &libvirt,
        machine::NAME,
        &xml,
        machine::PORT,
        machine::CONSOLE,
    )?;
    say("the guest is up");

    domain.run(&machine::address(&nic)?)?;
    traffic::pings(&domain, &peer).context("at first")?;
    traffic::is_pinged(lab, &nic)?;
    traffic::datagrams(lab, &domain, &peer)?;
    launcher.check(&nic)?;
    say("guest and pod of the other node reach each other");

    node.process("ovs-vswitchd").restart()?;
    let cut = Instant::now();
    until("the guest after a restart of ovs-vswitchd", MINUTE, || {
        traffic::pings(&domain, &peer).map(Some)
    })?;
    say(&format!(
        "reachable again {:.1} s after ovs-vswitchd was restarted",
        cut.elapsed().as_secs_f32()
    ));

    let said = disk.outlives_the_engine(&domain)?;
    say(&format!("outboard-engine was restarted: {said}"));
    let last = disk.dies(&domain)?;
    domain.destroy()?;
    drop(domain);
    // Until the next daemon's socket may be used.
    let domain = until("the machine's next start", MINUTE, || {
        Domain::create(
            &libvirt,
            machine::NAME,
            &xml,
            machine::PORT,
            machine::CONSOLE,
        )
        .map(Some)
    })?;
    let said = disk.holds(&domain, last)?;
    say(&format!("the machine is started again: {said}"));

    domain.destroy()?;
    launcher.end(&libvirt)?;
    drop(domain);
    drop(libvirt);
    peer.remove(lab)?;
    leaks::wait_for_none(lab, MINUTE)?;
    launcher::leaves_nothing(lab, NODE)?;
    disk::leaves_nothing(lab)?;
    say("nothing is left");
    Ok(())
}

/// What the parts on the VM's node said last.
fn evidence(lab: &Lab) -> String {
    let node = lab.node(NODE);
    let tail = |name: &str| {
        let log = node.dir().join(format!("{name}.log"));
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(30)..];
        format!("--- {}\n{}\n", log.display(), last.join("\n"))
    };
    let pods = ["get", "pods", "-A", "-o", "wide"];
    let logs = [
        "logs",
        "-n",
        "default",
        launcher::POD,
        "-c",
        launcher::SIDECAR,
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
    let ports = node.exec(&[
        "ovs-vsctl",
        "--columns=name,type,options,error,status,external_ids,mtu",
        "list",
        "interface",
    ]);
    format!(
        "{}{}{}--- pods\n{}\n--- shim\n{}\n--- cni-node\n{}\n--- interfaces\n{}",
        tail("ovs-vswitchd"),
        tail("libvirtd"),
        tail("virtlogd"),
        lab.kubectl(&pods).unwrap_or_default(),
        lab.kubectl(&logs).unwrap_or_default(),
        lab.kubectl(&cni).unwrap_or_default(),
        ports.unwrap_or_default(),
    )
}
