//! A VM whose BIOS boots from a vhost-user-blk socket: a pod has written the claim before.

use anyhow::{Context as _, Result, ensure};
use e2e::Lab;
use e2e::libvirt::{Boot, Domain};
use serde_json::json;

use crate::launcher::{self, Launcher, NAMESPACE, Plug, Spec};
use crate::traffic::{self, Peer};
use crate::{Clock, NODE, disk, machine, objects};

/// The example, its claim and its volume.
const VM: &str = "boot-disk";
const CLAIM: &str = "boot-disk";
const VOLUME: &str = "root";
const WRITER: &str = "writer";

/// From the empty claim to the guest's first pings.
pub(crate) fn story(lab: &Lab, peer: &Peer, clock: &Clock) -> Result<()> {
    let vm = objects::instance(lab, VM)?;
    let boot = Boot::on(lab.node(NODE), &[], &[])?;
    write(lab, &boot.disk(lab.node(NODE))?)?;
    clock.say("the boot disk is written");

    let spec = Spec {
        name: "virt-launcher-boot-disk-first",
        node: NODE,
        plug: Plug::Socket,
        migration: None,
    };
    let launcher = Launcher::start(lab, &vm, &spec)?;
    let nic = launcher.plug()?;
    let libvirt = launcher.libvirt()?;
    let order = "<boot order=\"1\"></boot>\n\t\t\t";
    let plain = machine::domain(&vm, &boot, &disk::xml(VOLUME, order));
    let plain = machine::from_disk(&plain);
    let xml = launcher.define(&libvirt, &plain, &vm)?;
    machine::is_bound(&xml, &nic, Plug::Socket)?;
    disk::is_bound(&xml, VOLUME, CLAIM)?;
    ensure!(
        !xml.contains("<kernel>"),
        "it would not boot from its disk: {xml}"
    );
    let name = machine::name(&vm);
    let domain = Domain::create(&libvirt, &name, &xml, machine::PORT, machine::CONSOLE)?;
    // GRUB's word, and the disk's.
    let loaded =
        domain.run("grep -qF 'BOOT_IMAGE=(hd0)' /proc/cmdline && cat /sys/block/vda/size")?;
    ensure!(loaded == "131072", "the disk has {loaded} sectors");
    domain.run(&machine::address(&nic)?)?;
    traffic::pings(&domain, peer)?;
    traffic::is_pinged(lab, &nic)?;
    clock.say("a guest has booted from its disk and is reached");

    domain.destroy()?;
    launcher.end(&libvirt)?;
    drop(domain);
    drop(libvirt);
    launcher::leaves_nothing(lab, NODE)
}

/// A pod writes an image of its node into the claim.
fn write(lab: &Lab, image: &str) -> Result<()> {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": WRITER, "namespace": NAMESPACE},
        "spec": {
            "nodeName": NODE, "restartPolicy": "Never", "automountServiceAccountToken": false,
            "containers": [{
                "name": "c", "image": lab.image(), "imagePullPolicy": "Never",
                "command": ["dd", "if=/image", "of=/dev/target", "bs=1M", "conv=fsync"],
                "volumeDevices": [{"name": "claim", "devicePath": "/dev/target"}],
                "volumeMounts": [{"name": "image", "mountPath": "/image", "readOnly": true}],
            }],
            "volumes": [
                {"name": "claim", "persistentVolumeClaim": {"claimName": CLAIM}},
                {"name": "image", "hostPath": {"path": image, "type": "File"}},
            ],
        },
    });
    lab.apply(&pod.to_string())?;
    let pod = ["-n", NAMESPACE, "pod", WRITER];
    let ended = [
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=60s",
    ];
    lab.kubectl(&[&ended[..], &pod].concat()).with_context(|| {
        let logs = ["logs", "-n", NAMESPACE, WRITER];
        lab.kubectl(&logs).unwrap_or_default()
    })?;
    lab.kubectl(&[&["delete"][..], &pod].concat()).map(drop)
}
