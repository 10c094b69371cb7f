//! A machine of QEMU serves the socket: packets pass, and pass again after ovs-vswitchd was killed.

use std::path::Path;

use cni_bin::wire::Command;
use lab::host_vm::{HostVm, HostVmSpec};

use super::{DB, IFNAME, add, mount, one_at_a_time, prepared, vhost};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};
use crate::tests::world::{MTU, World, ask, detach};
use crate::vhostuser::watch;

/// A machine whose one interface these arguments of QEMU make.
pub(super) fn spec(home: &Path, arguments: &[&str]) -> HostVmSpec {
    let mut spec = HostVmSpec::new(home);
    spec.functions = 0;
    spec.cpus = 1;
    spec.memory = 256;
    spec.modules = vec!["virtio_net".into()];
    spec.programs = vec!["/bin/ip".into()];
    spec.arguments = arguments.iter().map(|one| (*one).to_owned()).collect();
    spec
}

/// It has the port's addresses, and reaches `db` (10.244.1.9) with packets of every size, also after ovs-vswitchd was killed.
pub(super) async fn is_the_port(world: &mut World, vm: &HostVm) {
    vm.run(&format!(
        "/bin/ip link set eth0 mtu {MTU} up && /bin/ip addr add 10.244.1.7/24 dev eth0 && /bin/ip addr add fd00:10:244:1::7/64 dev eth0 nodad"
    ))
    .unwrap();
    let ping = || vm.run("ping -c 1 -W 2 10.244.1.9").is_ok();
    eventually("the machine reaches the pod", ping).await;
    vm.run(&format!("ping -c 1 -W 5 -s {} 10.244.1.9", MTU - 28))
        .unwrap();
    vm.run("ping -6 -c 1 -W 5 fd00:10:244:1::9").unwrap();
    sh("ip netns exec db ping -c1 -W5 10.244.1.7");
    world.ovn.kill_vswitchd();
    world.ovn.start_vswitchd();
    eventually("the machine reaches the pod again", ping).await;
}

/// A machine with two pairs of queues; its MTU is not the interface's.
fn boot(home: &Path) -> HostVm {
    let socket = mount().join(format!("{IFNAME}.sock"));
    let arguments = [
        "-chardev",
        &format!("socket,id=net,path={},server=on,wait=on", socket.display()),
        "-netdev",
        "vhost-user,id=net,chardev=net,queues=2",
        "-device",
        "virtio-net-pci,netdev=net,mac=0a:58:0a:f4:01:07,mq=on,vectors=6",
    ];
    HostVm::boot(spec(home, &arguments)).unwrap_or_else(|why| panic!("{why:#}"))
}

#[test]
fn a_port_without_a_memory_pool_is_said_when_the_machine_is_there() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::machine::a_port_without_a_memory_pool_is_said_when_the_machine_is_there",
        async {
            // As without librte-mempool-ring23.
            sh("mount -t tmpfs tmpfs /usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0");
            let world = prepared().await;
            let node = world.node().await;
            add(&node, "vm").await;
            assert_eq!(watch::problems(&node), Vec::<String>::new());
            let home = tempfile::tempdir().unwrap();
            let vm = boot(home.path());
            vm.run("/bin/ip link set eth0 up").unwrap();
            eventually("Open vSwitch says it", || {
                !watch::problems(&node).is_empty()
            })
            .await;
            let said = watch::problems(&node).join("; ");
            assert!(
                said.contains("librte-mempool-ring23") && said.contains("default/vm"),
                "{said}"
            );
            drop(vm);
            ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
            assert!(world.leftovers(&node).await.is_empty());
        },
    );
}

#[test]
fn a_machine_reaches_a_pod_through_its_socket_and_again_after_a_restart_of_open_vswitch() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::machine::a_machine_reaches_a_pod_through_its_socket_and_again_after_a_restart_of_open_vswitch",
        async {
            let mut world = prepared().await;
            let node = world.node().await;
            world.start_pod(&node, &DB, "blue", 9).await;
            add(&node, "vm").await;

            let home = tempfile::tempdir().unwrap();
            let vm = boot(home.path());
            is_the_port(&mut world, &vm).await;
            drop(vm);
            ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
            detach(&node, &DB, "db").await;
            assert!(world.leftovers(&node).await.is_empty());
        },
    );
}
