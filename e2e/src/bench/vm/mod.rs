//! A VM and a pod of one node: packets per second and round trips, by vhost-user and by veth, bridge and tap.
//!
//! The pod of the VM has one logical port, which is plugged in turns as the one and as the other; the domain differs in its interface
//! alone. The other end is an ordinary pod. Everything goes through OVN's flows in one Open vSwitch with DPDK.

mod load;
mod plug;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::report::{Report, Row};
use super::samples::Samples;
use super::{Bench, procfs};
use crate::cni_call::CniCall;
use crate::cni_lab::CniLab;
use crate::cni_network::{PodRow, PodSpec};
use crate::cni_sandbox::CniSandbox;
use crate::libvirt::{Boot, Domain, Libvirt, QEMU_USER};
use load::Load;
use plug::Plug;

const NODE: &str = "n1";
const IFNAME: &str = "net1";
const VM_UID: &str = "8b4d1c8e-7a0e-4f6e-9a65-0e4b8d6f2c11";
const DOMAIN: &str = include_str!("domain.xml");
const PORT: &str = "/run/outboard-vm/agent.sock";
const CONSOLE: &str = "/run/outboard-vm/console.log";

/// What was measured of one way.
#[derive(Debug, Default)]
struct Figures {
    round_trips: Samples,
    to_pod: Samples,
    to_vm: Samples,
    switch: Samples,
}

/// Both ends.
struct Ends<'l> {
    vm: PodRow,
    vm_pod: CniSandbox<'l>,
    peer: PodRow,
    peer_pod: CniSandbox<'l>,
}

/// A machine of each kind in each round, begun with the other one each time.
pub(super) fn measure(bench: &Bench) -> Result<Report> {
    let (rounds, seconds) = (bench.options.vm_rounds, bench.options.vm_seconds);
    let lab = CniLab::with_dpdk()?;
    let ends = Ends::of(&lab)?;
    let node = lab.node(NODE);
    let hooks = plug::hooks();
    node.script(&format!(
        "mkdir -p {hooks} && chown {QEMU_USER}:{QEMU_USER} {hooks}"
    ))?;
    let libvirt = Libvirt::inside(node, &hooks, &ends.vm_pod.path())?;
    let programs: [PathBuf; 1] = ["/bin/ip".into()];
    let boot = Boot::on(node, &programs, &["pktgen".into()])?;
    let mut figures = [(); 2].map(|()| Figures::default());
    for round in 0..usize::from(rounds) {
        for turn in [round % 2, (round + 1) % 2] {
            let plug = Plug::ALL[turn];
            Bench::say(&format!("round {} of {rounds}: {}", round + 1, plug.name()));
            plug.add(&lab, &ends.vm_pod, &ends.vm)?;
            let xml = domain(&boot, &plug.interface(&ends.vm));
            let domain = Domain::create(&libvirt, "bench", &xml, PORT, CONSOLE)?;
            let load = Load::new(&ends, &domain, seconds)?;
            figures[turn].take(&load, &lab)?;
            domain.destroy()?;
            plug.delete(&lab, &ends.vm_pod, &ends.vm)?;
        }
    }
    drop(libvirt);
    let mut report = Report::new(format!(
        "A VM (TCG) and a pod of its node: {rounds} machines of each kind in turns, {seconds} s of each load"
    ));
    rows(&mut report, &figures);
    Ok(report)
}

fn domain(boot: &Boot, interface: &str) -> String {
    DOMAIN
        .replace("{kernel}", &boot.kernel)
        .replace("{initrd}", &boot.initramfs)
        .replace("{cmdline}", &boot.command_line)
        .replace("{directory}", &boot.directory)
        .replace("{port}", PORT)
        .replace("{console}", CONSOLE)
        .replace("{interface}", interface)
}

impl<'l> Ends<'l> {
    fn of(lab: &'l CniLab) -> Result<Self> {
        let node = lab.node(NODE);
        let pod = |name: &str, uid: &str| {
            let spec = PodSpec {
                uid: uid.into(),
                ..PodSpec::new(name, NODE)
            };
            lab.network.schedule(&spec.secondary(IFNAME))
        };
        let ends = Self {
            vm: pod("vm", VM_UID)?,
            vm_pod: CniSandbox::create(node, "vm")?,
            peer: pod("peer", "uid-peer")?,
            peer_pod: CniSandbox::create(node, "peer")?,
        };
        let config = format!(
            r#"{{"cniVersion": "1.1.0", "name": "fast", "type": "outboard", "subnet": "{}"}}"#,
            ends.peer.facts.subnet
        );
        let call = CniCall::new("ADD", config).of(&ends.peer_pod, &ends.peer);
        call.run(node)?.result().context("ADD of the pod")?;
        Ok(ends)
    }
}

impl Figures {
    fn take(&mut self, load: &Load<'_>, lab: &CniLab) -> Result<()> {
        let switch = lab.node(NODE).process("ovs-vswitchd").pid()?;
        load.round_trips(&mut self.round_trips)?;
        let begun = procfs::cpu(switch)?;
        self.to_pod.note(load.to_pod()?);
        self.switch.push(procfs::cpu(switch)?.saturating_sub(begun));
        self.to_vm.note(load.to_vm()?);
        Ok(())
    }
}

fn rows(report: &mut Report, figures: &[Figures; 2]) {
    let [ours, tap] = figures;
    let other = Plug::Tap.name();
    let mut row = |what: &str, unit, ours: (f64, &Samples), other_value: f64| {
        let what = format!("{what}, vhost-user");
        report.push(
            Row::new(what, ours.0, unit)
                .beside(other, other_value)
                .of(ours.1),
        );
    };
    let (a, b) = (&ours.to_pod, &tap.to_pod);
    row("VM → pod", "packets/s", (a.p50(), a), b.p50());
    let (a, b) = (&ours.to_vm, &tap.to_vm);
    row("pod → VM", "packets/s", (a.p50(), a), b.p50());
    let (a, b) = (&ours.round_trips, &tap.round_trips);
    row("round trip p50", "ms", (a.p50(), a), b.p50());
    row("round trip p99", "ms", (a.p99(), a), b.p99());
    let (a, b) = (&ours.switch, &tap.switch);
    row(
        "ovs-vswitchd's processor time of VM → pod",
        "ms",
        (a.p50(), a),
        b.p50(),
    );
    report.note("packets: frames of 60 bytes as many as go, counted where they arrive; from the VM by its kernel's packet generator");
    report.note("round trip: pings by the pod. Both ways are the same port, address and flows of one Open vSwitch with DPDK");
    report.note("the guest's processor is QEMU's interpreter (no KVM), the tap has no vhost-net: ratios, not what a card does");
}
