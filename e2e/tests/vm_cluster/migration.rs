//! A machine goes to another node while its guest runs, and is sent back in vain: what virt-controller and virt-handler do around libvirt's
//! migration, in their order.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::libvirt::{Boot, Domain, Libvirt};
use e2e::{Lab, until};
use serde_json::{Value, json};

use crate::launcher::{IFNAME, Launcher, NAMESPACE, Nic, Plug, Spec};
use crate::traffic::{self, Flow, Loss, Peer};
use crate::{Clock, MINUTE, launcher, machine, objects};

/// The example that moves.
const VM: &str = "nic";
/// Where it starts, and where it goes: to the node of its peer.
const HOME: &str = "n2";
const AWAY: &str = "n1";
/// Nobody may be without the guest for longer. QEMU stops it for a tenth of a second; the rest is for machines where others compile.
const MOMENT: Duration = Duration::from_secs(5);

/// A VirtualMachineInstanceMigration.
pub(crate) struct Order<'a> {
    lab: &'a Lab,
    pub(crate) name: &'a str,
    pub(crate) uid: String,
}

impl<'a> Order<'a> {
    fn create(lab: &'a Lab, name: &'a str) -> Result<Self> {
        let object = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": {"vmiName": VM},
        });
        lab.apply(&object.to_string())?;
        let query = ["get", "vmim", "-n", NAMESPACE, name];
        let uid = lab.kubectl(&[&query[..], &["-o=jsonpath={.metadata.uid}"]].concat())?;
        let order = Self { lab, name, uid };
        order.phase("Pending")?;
        Ok(order)
    }

    /// What virt-controller says of it.
    fn phase(&self, phase: &str) -> Result<()> {
        let status = json!({"status": {"phase": phase}}).to_string();
        let object = ["patch", "vmim", "-n", NAMESPACE, self.name];
        let how = ["--subresource=status", "--type=merge", "-p", &status];
        self.lab.kubectl(&[&object[..], &how].concat()).map(drop)
    }
}

/// The rows of the machine's two ports, which are to be the same ones all the time.
struct Ports<'a> {
    lab: &'a Lab,
    rows: Vec<(String, String)>,
}

/// What a row says of who has the port.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    chassis: String,
    uid: String,
    target: String,
}

impl<'a> Ports<'a> {
    fn of(lab: &'a Lab) -> Result<Self> {
        let names = [
            format!("{NAMESPACE}/{VM}/machines/{IFNAME}"),
            format!("{NAMESPACE}/{VM}/default"),
        ];
        let row = |name: String| {
            let uuid = lab.nbctl(&["get", "logical_switch_port", &name, "_uuid"])?;
            Ok((name, uuid.trim().to_owned()))
        };
        let rows = names.into_iter().map(row).collect::<Result<_>>()?;
        Ok(Self { lab, rows })
    }

    /// Waits until both are held as said.
    fn are(&self, chassis: &str, uid: &str, target: &str) -> Result<()> {
        let wanted = Held {
            chassis: chassis.to_owned(),
            uid: uid.to_owned(),
            target: target.to_owned(),
        };
        for row in &self.rows {
            until(&format!("port {} on {chassis}", row.0), MINUTE, || {
                let held = self.held(row)?;
                ensure!(held == wanted, "{held:?}, not {wanted:?}");
                Ok(Some(()))
            })?;
        }
        Ok(())
    }

    /// Both rows are those of the beginning.
    fn are_the_same(&self) -> Result<()> {
        let now = Self::of(self.lab)?;
        ensure!(
            now.rows == self.rows,
            "other rows: {:?}, before: {:?}",
            now.rows,
            self.rows
        );
        Ok(())
    }

    fn held(&self, (name, _): &(String, String)) -> Result<Held> {
        let get = |column: &str| -> Result<String> {
            let argv = ["--if-exists", "get", "logical_switch_port", name, column];
            Ok(self.lab.nbctl(&argv)?.trim().trim_matches('"').to_owned())
        };
        Ok(Held {
            chassis: get("options:requested-chassis")?,
            uid: get("external_ids:uid")?,
            target: get("external_ids:target-uid")?,
        })
    }
}

/// What stays the same all the time.
struct Scene<'a> {
    lab: &'a Lab,
    clock: &'a Clock,
    peer: &'a Peer,
    plug: Plug,
    vm: &'a Value,
    /// The converter's XML, and what the first pod's sidecar made of it.
    plain: &'a str,
    xml: &'a str,
    nic: &'a Nic,
    ports: &'a Ports<'a>,
}

/// All of it, on two nodes that plug their machines in the same way.
pub(crate) fn story(lab: &Lab, plug: Plug, peer: &Peer, clock: &Clock) -> Result<()> {
    let vm = objects::instance(lab, VM)?;
    let [plain, other] = [HOME, AWAY].map(|node| {
        let boot = Boot::on(lab.node(node), &[], &[])?;
        anyhow::Ok(machine::domain(&vm, &boot, ""))
    });
    let plain = plain?;
    ensure!(plain == other?, "the nodes have the files in other places");
    let spec = Spec {
        name: "virt-launcher-nic-first",
        node: HOME,
        plug,
        migration: None,
    };
    let first = Launcher::start(lab, &vm, &spec)?;
    let nic = first.plug()?;
    let here = first.libvirt()?;
    let xml = first.define(&here, &plain, &vm)?;
    machine::is_bound(&xml, &nic, plug)?;
    let name = machine::name(&vm);
    let domain = Domain::create(&here, &name, &xml, machine::PORT, machine::CONSOLE)?;
    domain.run(&machine::address(&nic)?)?;
    let ports = Ports::of(lab)?;
    ports.are(HOME, &first.uid, "")?;
    let scene = Scene {
        lab,
        clock,
        peer,
        plug,
        vm: &vm,
        plain: &plain,
        xml: &xml,
        nic: &nic,
        ports: &ports,
    };
    scene.reached(&domain)?;
    first.check(&nic)?;
    clock.say("the guest is up and has its address by DHCP");

    let order = Order::create(lab, "nic-away")?;
    let (target, arrived) = scene.target("virt-launcher-nic-other", AWAY, &order)?;
    let there = scene.prepare(&target, &order)?;
    let both = format!("{HOME},{AWAY}");
    ports.are(&both, &first.uid, &target.uid)?;
    clock.say("the target's pod is plugged, its libvirt runs");

    let flow = Flow::start(lab, "away", &domain, peer, &nic)?;
    order.phase("Running")?;
    let moved = domain.migrate(&there)?.finish()?;
    drop(domain);
    let reached = scene.reached(&moved);
    reached.context("at the target, before the migration is said to be over")?;
    ports.are(&both, &first.uid, &target.uid)?;
    order.phase("Succeeded")?;
    ports.are(AWAY, &target.uid, "")?;
    scene.lost_little("went to the other node", flow.stop(&moved)?)?;

    first.end(&here)?;
    drop(here);
    launcher::leaves_nothing(lab, HOME)?;
    ports.are(AWAY, &target.uid, "")?;
    scene.reached(&moved).context("after the first pod's end")?;
    target.check(&arrived)?;
    clock.say("the first pod is gone");

    scene.back_in_vain(&moved)?;
    ports.are(AWAY, &target.uid, "")?;
    let reached = scene.reached(&moved);
    reached.context("after the migration that failed")?;
    target.check(&arrived)?;

    moved.destroy()?;
    target.end(&there)?;
    drop(moved);
    drop(there);
    launcher::leaves_nothing(lab, AWAY)
}

impl Scene<'_> {
    /// A pod for the machine on another node; its interface is the machine's.
    fn target<'o>(
        &'o self,
        name: &'o str,
        node: &'o str,
        order: &'o Order<'o>,
    ) -> Result<(Launcher<'o>, Nic)> {
        order.phase("Scheduling")?;
        let spec = Spec {
            name,
            node,
            plug: self.plug,
            migration: Some(order),
        };
        let target = Launcher::start(self.lab, self.vm, &spec)?;
        let nic = target.plug()?;
        ensure!(
            (&nic.mac, &nic.addresses, nic.mtu)
                == (&self.nic.mac, &self.nic.addresses, self.nic.mtu),
            "the target has another interface: {}, the source: {}",
            nic.result,
            self.nic.result
        );
        order.phase("Scheduled")?;
        Ok((target, nic))
    }

    /// The target is ready to take the guest. The sidecar's answer there is the source's; KubeVirt throws it away.
    fn prepare<'o>(&self, target: &Launcher<'o>, order: &Order<'_>) -> Result<Libvirt<'o>> {
        order.phase("PreparingTarget")?;
        let libvirt = target.libvirt()?;
        let xml = target.define(&libvirt, self.plain, self.vm)?;
        ensure!(
            xml == self.xml,
            "the target's XML: {xml}\nthe source's: {}",
            self.xml
        );
        order.phase("TargetReady")?;
        Ok(libvirt)
    }

    /// A migration to the first node, which is given up half-way.
    fn back_in_vain(&self, domain: &Domain<'_>) -> Result<()> {
        // This time KubeVirt's kinds were there before.
        restart_controller(self.lab)?;
        let order = Order::create(self.lab, "nic-back")?;
        let (target, _) = self.target("virt-launcher-nic-third", HOME, &order)?;
        let libvirt = self.prepare(&target, &order)?;
        let flow = Flow::start(self.lab, "back", domain, self.peer, self.nic)?;
        order.phase("Running")?;
        domain.migrate(&libvirt)?.abort()?;
        order.phase("Failed")?;
        target.end(&libvirt)?;
        drop(libvirt);
        self.lost_little("stayed where it was", flow.stop(domain)?)?;
        launcher::leaves_nothing(self.lab, HOME)
    }

    /// Guest and pod reach each other; to the guest nothing has happened.
    fn reached(&self, domain: &Domain<'_>) -> Result<()> {
        traffic::pings(domain, self.peer)?;
        traffic::is_pinged(self.lab, self.nic)?;
        traffic::page(domain, self.peer)?;
        domain.run(&machine::is_as_before(self.nic)?)?;
        self.ports.are_the_same()
    }

    fn lost_little(&self, what: &str, [pods, guests]: [Loss; 2]) -> Result<()> {
        self.clock.say(&format!(
            "the guest {what}; pod → guest: {pods}; guest → pod: {guests}"
        ));
        ensure!(
            pods.longest.max(guests.longest) < MOMENT,
            "longer than {MOMENT:?} without an answer"
        );
        Ok(())
    }
}

fn restart_controller(lab: &Lab) -> Result<()> {
    for verb in ["restart", "status"] {
        let rollout = ["rollout", verb, "-n", "outboard-system"];
        lab.kubectl(&[&rollout[..], &["deployment/cni-controller"]].concat())?;
    }
    Ok(())
}
