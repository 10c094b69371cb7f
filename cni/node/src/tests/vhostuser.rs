//! Interfaces that are sockets: Open vSwitch with DPDK, volumes as kubelet makes them, and a real machine that serves the socket.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cni_bin::code;
use cni_bin::wire::{Command, Request};
use serde_json::{Value, json};

pub(super) use super::world::DB;
use super::world::{MTU, TestPod, World, ask, request, sandbox, vhost_at, with, within};
use crate::gateway::tests::sandbox::{eventually, sandboxed, sh};
use crate::reconcile;
use crate::vhostuser::watch;

mod faults;
mod machine;
mod migration;
mod tap;

pub(super) const VM: TestPod = TestPod {
    name: "vm",
    uid: "8b4d1c8e-7a0e-4f6e-9a65-0e4b8d6f2c11",
};
pub(super) const IFNAME: &str = "pod6c270ef2f25";
const HOOKS: &str = "hook-sidecar-sockets";
const DEVINFO: &str = "/run/k8s.cni.cncf.io/devinfo/cni/fast-vm_pod6c270ef2f25";

/// A thread of DPDK never sleeps: one Open vSwitch that has one at a time.
fn one_at_a_time() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn vhost(command: Command, sandbox: &str) -> Request {
    with(
        request(command, &VM, sandbox, IFNAME),
        &json!({"name": "fast", "subnet": "blue", "kind": "vhostuser", "queues": 2,
            "runtimeConfig": {"CNIDeviceInfoFile": DEVINFO}}),
    )
}

/// The row, the sandbox and the volume of a machine's pod, on a node with DPDK.
pub(super) async fn prepared() -> World {
    with_machine(World::start_dpdk().await)
}

/// The same on any node.
fn with_machine(world: World) -> World {
    world.allocate(&VM, IFNAME, "blue", 7);
    sandbox("vm");
    world.volume(&VM, HOOKS);
    world
}

fn mount() -> PathBuf {
    PathBuf::from("/run/outboard/vhost").join(VM.uid)
}

#[test]
fn a_socket_is_plugged_checked_and_taken_away() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::a_socket_is_plugged_checked_and_taken_away",
        async {
            let world = prepared().await;
            let node = world.node().await;
            let result = ask(&node, &vhost(Command::Add, "vm")).await.unwrap();
            let path = format!("/var/run/kubevirt-hooks/outboard/net/{IFNAME}.sock");
            assert_eq!(
                result["interfaces"],
                json!([{"name": IFNAME, "mac": "0a:58:0a:f4:01:07", "mtu": MTU, "sandbox": "/run/netns/vm", "socketPath": path}])
            );
            assert_eq!(result["ips"][0]["address"], "10.244.1.7/24");
            assert_eq!(result["ips"][0]["interface"], 0);
            assert!(!sh("ip -n vm link").contains(IFNAME));

            // What QEMU (uid 107) writes into, and how Open vSwitch gets there.
            let net = world.volume(&VM, HOOKS).join("outboard/net");
            let made = std::fs::metadata(&net).unwrap();
            assert_eq!(made.permissions().mode() & 0o7777, 0o770);
            assert_eq!((made.uid(), made.gid()), (107, 107));
            assert_eq!(std::fs::metadata(mount()).unwrap().ino(), made.ino());
            let column = |name: &str| {
                let found = format!(
                    "--no-headings --data=bare --columns={name} find Interface external_ids:iface-id=default/vm/blue/{IFNAME}"
                );
                world.ovn.vsctl(&found).trim().to_owned()
            };
            assert_eq!(column("type"), "dpdkvhostuserclient");
            let server = format!("{}/{IFNAME}.sock", mount().display());
            assert_eq!(column("options"), format!("vhost-server-path={server}"));
            assert_eq!(column("mtu_request"), MTU.to_string());
            for id in [
                "outboard=pod",
                "sandbox=vm",
                "ovn-installed=true",
                &format!("uid={}", VM.uid),
            ] {
                assert!(column("external_ids").contains(id), "{id}");
            }
            let info: Value = serde_json::from_slice(&std::fs::read(DEVINFO).unwrap()).unwrap();
            assert_eq!(
                info,
                json!({"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": "server", "path": path}})
            );

            let again = ask(&node, &vhost(Command::Add, "vm")).await.unwrap_err();
            assert_eq!(again.code, code::REFUSED, "{again}");
            ask(&node, &vhost(Command::Status, "-")).await.unwrap();
            let check = with(vhost(Command::Check, "vm"), &json!({"prevResult": result}));
            ask(&node, &check).await.unwrap();
            let differs = async |tamper: &str, sentence: &str| {
                sh(tamper);
                let failure = ask(&node, &check).await.unwrap_err();
                assert_eq!(failure.code, code::CHECK_FAILED, "{failure}");
                assert!(failure.msg.contains(sentence), "{tamper}: {failure}");
            };
            differs(
                &format!("mv {DEVINFO} {DEVINFO}.x"),
                "device information is gone",
            )
            .await;
            sh(&format!("mv {DEVINFO}.x {DEVINFO}"));
            differs(
                &format!("umount {}", mount().display()),
                "is not the directory of its socket",
            )
            .await;
            // The loop puts it back, and has nothing against a port without a link.
            assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            ask(&node, &check).await.unwrap();
            let plan = reconcile::plan::plan(&reconcile::observe(&node).await.unwrap());
            assert_eq!(plan, Vec::new());
            assert_eq!(watch::problems(&node), Vec::<String>::new());
            port_comes_back(&world, &node).await;
            ask(&node, &check).await.unwrap();

            for _ in 0..2 {
                ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
                assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
                assert!(!PathBuf::from(DEVINFO).exists() && !mount().exists());
            }
            assert!(net.exists(), "the volume is the pod's");

            // By GC, and by the end of the sandbox without any call.
            ask(&node, &vhost(Command::Add, "vm")).await.unwrap();
            let gc = with(
                vhost(Command::Gc, "-"),
                &json!({"cni.dev/valid-attachments": []}),
            );
            ask(&node, &gc).await.unwrap();
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            ask(&node, &vhost(Command::Add, "vm")).await.unwrap();
            sh("ip netns del vm");
            assert_eq!(reconcile::round(&node).await, reconcile::Left::default());
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            assert!(!PathBuf::from(DEVINFO).exists() && !mount().exists());
        },
    );
}

#[test]
fn a_pod_that_is_no_machine_has_its_socket_in_shared_dir() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::a_pod_that_is_no_machine_has_its_socket_in_shared_dir",
        async {
            let world = World::start_dpdk().await;
            let node = world.node().await;
            world.allocate(&DB, "net1", "blue", 8);
            sandbox("db");
            let shared = world.volume(&DB, "shared-dir");
            sh(&format!("chmod 0777 {}", shared.display()));
            let keys = json!({"name": "fast", "subnet": "blue", "kind": "vhostuser"});
            let call = |command| with(request(command, &DB, "db", "net1"), &keys);
            let result = ask(&node, &call(Command::Add)).await.unwrap();
            let ours = &result["interfaces"][0];
            assert_eq!(ours["socketPath"], "/var/lib/cni/usrcni/net1.sock");
            let made = std::fs::metadata(&shared).unwrap();
            assert_eq!((made.permissions().mode() & 0o7777, made.uid()), (0o777, 0));
            assert_eq!(std::fs::read_dir(&shared).unwrap().count(), 0);
            let mount = format!("/run/outboard/vhost/{}.shared", DB.uid);
            assert_eq!(std::fs::metadata(mount).unwrap().ino(), made.ino());
            // A runtime of an earlier version of the specification: no socketPath.
            let old = json!({"cniVersion": "1.0.0"});
            ask(&node, &call(Command::Del)).await.unwrap();
            let result = ask(&node, &with(call(Command::Add), &old)).await.unwrap();
            assert_eq!(result["interfaces"][0].get("socketPath"), None);
            let prev = json!({"prevResult": result, "cniVersion": "1.0.0"});
            ask(&node, &with(call(Command::Check), &prev))
                .await
                .unwrap();
            ask(&node, &call(Command::Del)).await.unwrap();
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
        },
    );
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_left() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::what_is_wrong_is_said_and_nothing_is_left",
        async {
            let world = prepared().await;
            let node = world.node().await;
            let outboard = world.volume(&VM, HOOKS).join("outboard");
            let refused = async |expected: u32, says: &str| {
                let call = within(vhost(Command::Add, "vm"), Duration::from_secs(5));
                let failure = ask(&node, &call).await.unwrap_err();
                assert_eq!(failure.code, expected, "{failure}");
                assert!(
                    failure.msg.contains(says) && !failure.details.is_empty(),
                    "{says}: {failure}"
                );
                assert_eq!(world.leftovers(&node).await, Vec::<String>::new(), "{says}");
                assert!(!mount().exists(), "{says}");
            };
            symlink("/etc", &outboard).unwrap();
            refused(code::REFUSED, "is a symbolic link").await;
            std::fs::remove_file(&outboard).unwrap();
            std::fs::create_dir_all(outboard.join("net")).unwrap();
            std::fs::write(outboard.join("net").join(format!("{IFNAME}.sock")), "").unwrap();
            refused(code::REFUSED, "is a file").await;
            sh(&format!("rm -r {}", outboard.display()));

            // Another port has the socket.
            let server = format!("{}/{IFNAME}.sock", mount().display());
            world.ovn.vsctl(&format!(
                "add-port br-int other -- set Interface other type=dpdkvhostuserclient options:vhost-server-path={server}"
            ));
            eventually("cni-node sees it", || {
                node.vswitch.at_socket(&server).len() == 1
            })
            .await;
            refused(
                code::REFUSED,
                "port other of somebody else is connected to its socket",
            )
            .await;
            world.ovn.vsctl("del-port other");
            eventually("it is gone", || node.vswitch.at_socket(&server).is_empty()).await;

            // Multus's directory is not mounted: the machine would not be told.
            std::fs::write("/run/k8s.cni.cncf.io", "").unwrap();
            refused(code::IO_FAILURE, "The device information").await;
            assert!(!PathBuf::from(DEVINFO).exists());
            std::fs::remove_file("/run/k8s.cni.cncf.io").unwrap();

            let bad = with(vhost(Command::Add, "vm"), &json!({"queues": 0}));
            let failure = ask(&node, &bad).await.unwrap_err();
            assert_eq!(failure.code, code::INVALID_CONFIG, "{failure}");

            sh(&format!("rm -r {}", outboard.parent().unwrap().display()));
            refused(
                code::REFUSED,
                "has no volume hook-sidecar-sockets or shared-dir",
            )
            .await;
        },
    );
}

#[test]
fn a_path_that_fits_into_no_address_is_said_and_nothing_is_left() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::a_path_that_fits_into_no_address_is_said_and_nothing_is_left",
        async {
            let world = prepared().await;
            let Some(mut node) = Arc::into_inner(world.node().await) else {
                panic!("nobody else has it");
            };
            let deep = PathBuf::from("/run").join("d".repeat(80));
            node.vhost = vhost_at(world.ovn.home(), &deep);
            let failure = ask(&node, &vhost(Command::Add, "vm")).await.unwrap_err();
            assert_eq!(failure.code, code::REFUSED, "{failure}");
            assert!(
                failure.msg.contains("fit into a socket's address"),
                "{failure}"
            );
            assert!(failure.details.contains("--vhost-dir"), "{failure}");
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            assert!(!world.volume(&VM, HOOKS).join("outboard").exists());
            assert!(!deep.exists() && !PathBuf::from(DEVINFO).exists());
        },
    );
}

#[test]
fn a_link_that_the_pod_plants_later_leads_nowhere() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::a_link_that_the_pod_plants_later_leads_nowhere",
        async {
            let world = prepared().await;
            let node = world.node().await;
            add(&node, "vm").await;
            let others = PathBuf::from("/run/others.sock");
            let _served = UnixListener::bind(&others).unwrap();
            let socket = format!("{IFNAME}.sock");
            let planted = world.volume(&VM, HOOKS).join("outboard/net").join(&socket);
            symlink(&others, &planted).unwrap();
            assert!(std::fs::metadata(&planted).is_ok(), "it leads there");
            // As Open vSwitch goes there.
            let error = UnixStream::connect(mount().join(&socket)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(nix::libc::ELOOP), "{error}");
            ask(&node, &vhost(Command::Del, "vm")).await.unwrap();
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            assert!(!mount().exists());
            // The next sandbox of the pod does not go there, either.
            let failure = ask(&node, &vhost(Command::Add, "vm")).await.unwrap_err();
            assert_eq!(failure.code, code::REFUSED, "{failure}");
            assert!(failure.msg.contains("is a symbolic link"), "{failure}");
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
        },
    );
}

#[test]
fn a_node_without_dpdk_says_what_it_lacks() {
    let _alone = one_at_a_time();
    sandboxed(
        "tests::vhostuser::a_node_without_dpdk_says_what_it_lacks",
        async {
            let world = with_machine(World::start().await);
            let node = world.node().await;
            world.allocate(&DB, "net1", "blue", 8);
            sandbox("db");
            world.volume(&DB, "shared-dir");
            let none = |command| with(vhost(command, "vm"), &json!({"fallback": "none"}));
            // Who is no machine has nothing to do with a tap.
            let app = json!({"name": "fast", "subnet": "blue", "kind": "vhostuser"});
            let app = with(request(Command::Add, &DB, "db", "net1"), &app);
            for call in [none(Command::Add), app] {
                let failure = ask(&node, &call).await.unwrap_err();
                assert_eq!(failure.code, code::TRY_AGAIN_LATER, "{failure}");
                for says in [
                    "update-alternatives --set ovs-vswitchd",
                    "ovs-vsctl set Open_vSwitch . other_config:dpdk-init=true",
                ] {
                    assert!(failure.msg.contains(says), "{failure}");
                }
            }
            assert_eq!(world.leftovers(&node).await, Vec::<String>::new());
            assert!(!world.volume(&VM, HOOKS).join("outboard").exists());
            // Who does not ask for it is served, and the node is ready.
            let status = ask(&node, &none(Command::Status)).await.unwrap_err();
            assert_eq!(status.code, code::NOT_AVAILABLE, "{status}");
            assert!(status.msg.contains("dpdk-init"), "{status}");
            for call in [
                request(Command::Status, &VM, "-", "-"),
                vhost(Command::Status, "-"),
            ] {
                ask(&node, &call).await.unwrap();
            }
            assert_eq!(watch::problems(&node), Vec::<String>::new());
        },
    );
}

/// Serves an ADD of the machine's interface in that sandbox.
pub(super) async fn add(node: &Arc<crate::node::Node>, sandbox: &str) {
    ask(node, &vhost(Command::Add, sandbox)).await.unwrap();
}

/// Open vSwitch loses the one port, and a round of the loop brings it back.
async fn port_comes_back(world: &World, node: &crate::node::Node) {
    let link = node.store.all()[0].link();
    world.ovn.vsctl(&format!("del-port {link}"));
    eventually("the loss is seen", || node.vswitch.ports().is_empty()).await;
    assert_eq!(reconcile::round(node).await, reconcile::Left::default());
    world.ovn.vsctl(&format!(
        "wait-until Interface {link} external_ids:ovn-installed=true"
    ));
}
