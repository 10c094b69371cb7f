//! Machines' interfaces on the target of a migration, and on a source.

use std::time::Duration;

use api::plugged_kind_key;
use cni_bin::code;
use cni_bin::wire::Command;
use serde_json::{Value, json};

use super::{HOOKS, IFNAME, one_at_a_time};
use crate::gateway::tests::sandbox::{eventually, sandboxed};
use crate::tests::migration::{Machine, OTHER, Stage, is_whole, two};
use crate::tests::world::{World, ask, with, within};

/// How the first pod's node has it.
fn publish(world: &World, machine: &Machine, kind: &str) {
    let key = plugged_kind_key(machine.first.0.uid, machine.ifname);
    world.ovn.sbctl(&format!(
        "--if-exists destroy Chassis_Private {OTHER} -- create Chassis_Private name={OTHER} 'external_ids:\"{key}\"={kind}'"
    ));
}

fn keys() -> Value {
    json!({"name": "fast", "subnet": "blue", "kind": "vhostuser"})
}

#[test]
fn a_target_has_its_socket_while_the_source_has_its_own() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::migration::a_target_has_its_socket_while_the_source_has_its_own",
        async {
            let world = World::start_dpdk().await;
            let node = world.node().await;
            two(&world);
            let machine = Machine::new(false, IFNAME, "blue");
            machine.write(&world, Stage::First);
            machine.bound_there(&world);
            publish(&world, &machine, "vhost-user");
            machine.write(&world, Stage::Both);
            world.volume(machine.here(), HOOKS);
            let (result, check) = machine.add(&node, &keys()).await;
            let socket = format!("/var/run/kubevirt-hooks/outboard/net/{IFNAME}.sock");
            assert_eq!(result["interfaces"][0]["socketPath"], json!(socket));
            assert_eq!(result["ips"][0]["address"], "10.244.1.7/24");
            assert_eq!(machine.bound(&world, "chassis"), OTHER);
            is_whole(&node, &check, "both").await;
            machine.write(&world, Stage::Second);
            eventually("the port is the target's", || {
                machine.bound(&world, "chassis") == "n1"
            })
            .await;
            is_whole(&node, &check, "second").await;
            machine.del(&world, &node, &keys()).await;

            // A source, whose machine has left, and a target, to which it did not come.
            for (here, before, after) in [
                (true, Stage::First, Stage::Second),
                (false, Stage::Both, Stage::First),
            ] {
                let machine = Machine::new(here, IFNAME, "blue");
                world.volume(machine.here(), HOOKS);
                machine.write(&world, before);
                let (_, check) = machine.add(&node, &keys()).await;
                machine.write(&world, after);
                eventually("this node lets go", || {
                    ["chassis", "additional_chassis"]
                        .into_iter()
                        .all(|column| machine.bound(&world, column) != "n1")
                })
                .await;
                machine.bound_there(&world);
                let ports = node.vswitch.ports();
                is_whole(&node, &check, "elsewhere").await;
                assert_eq!(node.vswitch.ports(), ports);
                assert_eq!(machine.bound(&world, "chassis"), OTHER);
                machine.del(&world, &node, &keys()).await;
            }
        },
    );
}

#[test]
fn a_machine_does_not_migrate_to_a_node_of_the_other_kind() {
    sandboxed(
        "tests::vhostuser::migration::a_machine_does_not_migrate_to_a_node_of_the_other_kind",
        async {
            let world = World::start().await;
            let node = world.node().await;
            two(&world);
            let machine = Machine::new(false, IFNAME, "blue");
            world.volume(machine.here(), HOOKS);
            let add = |patience: u64| {
                let call = machine.call(Command::Add, &keys());
                within(call, Duration::from_secs(patience))
            };
            // Without a subnet in the network the machine's port is not known before its row is.
            let blind = with(add(20), &json!({"subnet": null}));
            for (stage, call) in [
                (Stage::First, add(20)),
                (Stage::Both, add(20)),
                (Stage::Both, blind),
            ] {
                machine.write(&world, stage);
                publish(&world, &machine, "vhost-user");
                let failure = ask(&node, &call).await.unwrap_err();
                assert_eq!(failure.code, code::TRY_AGAIN_LATER, "{failure}");
                for says in [
                    "virt-launcher-vm-a1b2c",
                    "as vhost-user on node n2",
                    "on this node, n1, it would be tap",
                ] {
                    assert!(failure.msg.contains(says), "{failure}");
                }
                assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            }
            // Two pods and no migration: a node of the same kind waits for the port, and says whose it is.
            publish(&world, &machine, "tap");
            machine.write(&world, Stage::First);
            eventually("this node has no row", || {
                let sentence = node.southbound.binding(&machine.port());
                sentence.is_some_and(|sentence| sentence.contains("no longer"))
            })
            .await;
            let failure = ask(&node, &add(3)).await.unwrap_err();
            for says in [
                "port default/vm/blue/pod6c270ef2f25 is that of pod default/virt-launcher-vm-a1b2c",
                "No VirtualMachineInstanceMigration",
            ] {
                assert!(failure.to_string().contains(says), "{failure}");
            }
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            // The migration begins while it waits.
            let begin = async {
                tokio::task::yield_now().await;
                machine.write(&world, Stage::Both);
            };
            let patient = add(20);
            let (result, ()) = tokio::join!(ask(&node, &patient), begin);
            assert_eq!(result.unwrap()["ips"][0]["address"], "10.244.1.7/24");
            machine.del(&world, &node, &keys()).await;
        },
    );
}
