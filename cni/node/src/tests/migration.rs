//! A virtual machine that migrates has two pods and one logical port: this node is the target, or the source. The other chassis is a row of
//! the southbound database alone.

use api::{MigrationTarget, PortFacts, Role};
use cni_bin::wire::{Command, Request};
use serde_json::{Value, json};

use super::world::{DB, TestPod, World, ask, detach, facts, request, sandbox, with};
use crate::gateway::tests::ovn::NODE;
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};
use crate::node::Node;
use crate::reconcile;

/// The other chassis.
pub(super) const OTHER: &str = "n2";

/// A machine's interface: `first` has it, on that chassis; `second` is on the other one.
pub(super) struct Machine {
    pub(super) first: (TestPod, &'static str),
    pub(super) second: (TestPod, &'static str),
    pub(super) ifname: &'static str,
    pub(super) subnet: &'static str,
}

/// What cni-controller makes of its port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// One pod, or two and no migration.
    First,
    /// Both may have it.
    Both,
    /// The second pod's.
    Second,
}

impl Machine {
    /// A machine `vm`, whose first pod is on this node or on the other one.
    pub(super) fn new(first_is_here: bool, ifname: &'static str, subnet: &'static str) -> Self {
        let (one, two) = if first_is_here {
            (NODE, OTHER)
        } else {
            (OTHER, NODE)
        };
        let pod = |name, uid| TestPod { name, uid };
        Self {
            first: (
                pod(
                    "virt-launcher-vm-a1b2c",
                    "8b4d1c8e-7a0e-4f6e-9a65-0e4b8d6f2c11",
                ),
                one,
            ),
            second: (
                pod(
                    "virt-launcher-vm-b2c3d",
                    "0d7f3b52-51c5-4a6e-9b4e-5a3f2d0c7e22",
                ),
                two,
            ),
            ifname,
            subnet,
        }
    }

    /// The pod that is on this node.
    pub(super) fn here(&self) -> &TestPod {
        let here = [&self.first, &self.second]
            .into_iter()
            .find(|(_, chassis)| *chassis == NODE);
        &here.unwrap().0
    }

    pub(super) fn port(&self) -> String {
        let secondary = (self.ifname != "eth0").then_some(self.ifname);
        api::names::pod_port("default", "vm", self.subnet, secondary)
    }

    /// As cni-controller writes it.
    pub(super) fn write(&self, world: &World, stage: Stage) {
        let ((first, source), (second, target)) = (&self.first, &self.second);
        let of = |pod: &TestPod, chassis: &str| facts(pod, chassis, self.ifname, self.subnet, 7);
        let alone = |pod: &TestPod, chassis: &str| {
            let options = format!("requested-chassis={chassis} iface-id-ver={}", pod.uid);
            (of(pod, chassis), options)
        };
        let (facts, options): (PortFacts, String) = match stage {
            Stage::First => alone(first, source),
            Stage::Second => alone(second, target),
            Stage::Both => {
                let mut both = of(first, source);
                both.chassis.insert((*target).to_owned());
                if let Role::Pod(pod) = &mut both.role {
                    pod.target = Some(MigrationTarget {
                        name: second.name.to_owned(),
                        uid: second.uid.to_owned(),
                    });
                }
                let strategy = if self.ifname == "eth0" {
                    " activation-strategy=rarp"
                } else {
                    ""
                };
                (
                    both,
                    format!("requested-chassis={source},{target}{strategy}"),
                )
            }
        };
        world.write_port(&self.port(), &facts, &options);
        world.ovn.nbctl("--wait=sb sync");
    }

    /// The other chassis has bound the port, as its ovn-controller would.
    pub(super) fn bound_there(&self, world: &World) {
        world
            .ovn
            .sbctl(&format!("--may-exist lsp-bind {} {OTHER}", self.port()));
    }

    /// A column of the port's southbound row, chassis by name.
    pub(super) fn bound(&self, world: &World, column: &str) -> String {
        let found = format!(
            "--bare --columns={column} find Port_Binding logical_port={}",
            self.port()
        );
        let uuid = world.ovn.sbctl(&found);
        match uuid.trim() {
            "" => String::new(),
            uuid => world
                .ovn
                .sbctl(&format!("get Chassis {uuid} name"))
                .trim()
                .to_owned(),
        }
    }

    /// Its ADD on this node: the result, and the CHECK of it.
    pub(super) async fn add(&self, node: &Node, keys: &Value) -> (Value, Request) {
        let added = ask(node, &self.call(Command::Add, keys)).await;
        let result = added.unwrap_or_else(|failure| panic!("{failure}"));
        let check = with(
            self.call(Command::Check, keys),
            &json!({"prevResult": result}),
        );
        (result, check)
    }

    /// Its DEL on this node, which leaves nothing.
    pub(super) async fn del(&self, world: &World, node: &Node, keys: &Value) {
        ask(node, &self.call(Command::Del, keys)).await.unwrap();
        assert_eq!(world.leftovers(node).await, Vec::<String>::new());
    }

    /// A request of this node's runtime.
    pub(super) fn call(&self, command: Command, keys: &Value) -> Request {
        with(request(command, self.here(), "vm", self.ifname), keys)
    }
}

/// A node, the other one's row, and a sandbox.
pub(super) fn two(world: &World) {
    world
        .ovn
        .sbctl(&format!("chassis-add {OTHER} geneve 198.18.0.2"));
    sandbox("vm");
}

/// Nothing is to be done for what is there, and a CHECK finds nothing.
pub(super) async fn is_whole(node: &Node, check: &Request, what: &str) {
    let plan = reconcile::plan::plan(&reconcile::observe(node).await.unwrap());
    assert_eq!(plan, Vec::new(), "{what}");
    if let Err(failure) = ask(node, check).await {
        panic!("{what}: {failure}");
    }
}

#[test]
fn a_target_has_addresses_before_the_switch_and_traffic_after_it() {
    sandboxed(
        "tests::migration::a_target_has_addresses_before_the_switch_and_traffic_after_it",
        async {
            let world = World::start().await;
            let node = world.node().await;
            two(&world);
            world.start_pod(&node, &DB, "default", 6).await;
            let machine = Machine::new(false, "eth0", "default");
            machine.write(&world, Stage::First);
            machine.bound_there(&world);
            machine.write(&world, Stage::Both);
            let (result, check) = machine.add(&node, &json!({})).await;
            assert_eq!(result["ips"][0]["address"], "10.244.0.7/24");
            assert_eq!(result["interfaces"][1]["mac"], "0a:58:0a:f4:00:07");
            assert_eq!(machine.bound(&world, "chassis"), OTHER);
            assert_eq!(machine.bound(&world, "additional_chassis"), NODE);
            assert_eq!(node.southbound.binding(&machine.port()), None);
            is_whole(&node, &check, "both").await;
            // The target's kernel does not answer for the machine yet.
            sh("! ip netns exec db ping -c2 -i0.3 -W1 10.244.0.7");

            machine.write(&world, Stage::Second);
            eventually("the port is the target's", || {
                machine.bound(&world, "chassis") == NODE
            })
            .await;
            sh("ip netns exec db ping -c3 -W5 10.244.0.7");
            is_whole(&node, &check, "second").await;
            detach(&node, &DB, "db").await;
            machine.del(&world, &node, &json!({})).await;
        },
    );
}

#[test]
fn a_source_keeps_its_port_until_its_del_and_does_not_bind_it() {
    sandboxed(
        "tests::migration::a_source_keeps_its_port_until_its_del_and_does_not_bind_it",
        async {
            let world = World::start().await;
            let node = world.node().await;
            two(&world);
            let machine = Machine::new(true, "eth0", "default");
            machine.write(&world, Stage::First);
            let (_, check) = machine.add(&node, &json!({})).await;
            machine.write(&world, Stage::Both);
            is_whole(&node, &check, "both").await;
            assert_eq!(machine.bound(&world, "chassis"), NODE);

            machine.write(&world, Stage::Second);
            eventually("the source lets go", || {
                machine.bound(&world, "chassis").is_empty()
            })
            .await;
            machine.bound_there(&world);
            let ports = node.vswitch.ports();
            for _ in 0..2 {
                is_whole(&node, &check, "second").await;
                assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            }
            assert_eq!(node.vswitch.ports(), ports, "nothing was plugged again");
            assert_eq!(machine.bound(&world, "chassis"), OTHER);
            // Nor by a cni-node that was started anew.
            drop(node);
            let node = world.node().await;
            is_whole(&node, &check, "started anew").await;
            machine.del(&world, &node, &json!({})).await;
        },
    );
}

#[test]
fn a_migration_that_failed_leaves_the_port_where_it_was() {
    sandboxed(
        "tests::migration::a_migration_that_failed_leaves_the_port_where_it_was",
        async {
            let world = World::start().await;
            let node = world.node().await;
            two(&world);
            let machine = Machine::new(false, "eth0", "default");
            machine.write(&world, Stage::First);
            machine.bound_there(&world);
            machine.write(&world, Stage::Both);
            let (_, check) = machine.add(&node, &json!({})).await;
            machine.write(&world, Stage::First);
            eventually("the target lets go", || {
                machine.bound(&world, "additional_chassis").is_empty()
            })
            .await;
            is_whole(&node, &check, "failed").await;
            assert_eq!(machine.bound(&world, "chassis"), OTHER);
            machine.del(&world, &node, &json!({})).await;
            // What is gone altogether is not elsewhere.
            machine.write(&world, Stage::Both);
            let (_, check) = machine.add(&node, &json!({})).await;
            world
                .ovn
                .nbctl(&format!("--wait=sb lsp-del {}", machine.port()));
            eventually("its flows are gone", || {
                let ids = world.ovn.vsctl(
                    "--bare --columns=external_ids find Interface external_ids:outboard=pod",
                );
                !ids.contains("ovn-installed=true")
            })
            .await;
            let failure = ask(&node, &check).await.unwrap_err();
            assert!(
                failure.msg.contains("has not installed its flows"),
                "{failure}"
            );
        },
    );
}
