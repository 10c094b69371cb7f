//! The domain as KubeVirt's converter makes it of the VM, before any sidecar, and what it must be after ours.

use anyhow::{Context as _, Result, ensure};
use e2e::libvirt::Boot;
use serde_json::Value;

use crate::launcher::{Nic, Plug};

/// The port over which this test's scripts come, in the place of the guest agent's: to that one libvirt connects itself.
pub(crate) const PORT: &str = "/run/outboard-vm/agent.sock";
/// What the guest's serial console says.
pub(crate) const CONSOLE: &str = "/run/outboard-vm/console.log";

const TEMPLATE: &str = include_str!("domain.xml");

/// What libvirt calls a VM's domain.
pub(crate) fn name(vm: &Value) -> String {
    let name = vm["metadata"]["name"].as_str().unwrap_or_default();
    format!("default_{name}")
}

/// The converter's XML. The container disk is left out: the guest has all in its initramfs; and it has one processor.
pub(crate) fn domain(vm: &Value, boot: &Boot, disk: &str) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    TEMPLATE
        .replace("{name}", &name(vm))
        .replace("{uid}", &text(&vm["metadata"]["uid"]))
        .replace("{kernel}", &boot.kernel)
        .replace("{initrd}", &boot.initramfs)
        .replace("{cmdline}", &boot.command_line)
        .replace("{directory}", &boot.directory)
        .replace("{disk}", disk)
        .replace("{port}", PORT)
        .replace("{console}", CONSOLE)
}

/// The same machine without what libvirt would give it to boot: it boots from its disk.
pub(crate) fn from_disk(xml: &str) -> String {
    let given = ["<kernel>", "<initrd>", "<cmdline>"];
    let lines = xml
        .lines()
        .filter(|line| !given.iter().any(|tag| line.contains(tag)));
    lines.collect::<Vec<_>>().join("\n")
}

/// The interface is the pod's: a socket, in memory that the switch can map; or the pod's tap.
pub(crate) fn is_bound(xml: &str, nic: &Nic, plug: Plug) -> Result<()> {
    let mac = format!("<mac address='{}'/>", nic.mac);
    let parts: &[&str] = match plug {
        Plug::Socket => &["type='vhostuser'", "mode='server'", "memfd", "shared"],
        Plug::Tap => &["type='ethernet'", "dev='tap6c270ef2f25'", "managed='no'"],
    };
    for part in parts.iter().chain(&["ua-net1", &mac]) {
        ensure!(
            xml.replace('"', "'").contains(part),
            "no {part} in the domain:\n{xml}"
        );
    }
    Ok(())
}

/// The guest's interface is as [`address`] has left it.
pub(crate) fn is_as_before(nic: &Nic) -> Result<String> {
    Ok(format!(
        "set -e\nread -r mac </sys/class/net/eth0/address\n[ \"$mac\" = '{}' ]\n\
         ip -4 addr show dev eth0 | grep -qF ' {}/'\nip -6 addr show dev eth0 | grep -qF ' {}/'\n\
         read -r asked </run/asked\n[ \"$asked\" = 1 ]\n",
        nic.mac,
        nic.ip(false)?,
        nic.ip(true)?
    ))
}

/// Brings the guest's interface up with the port's MAC and MTU. Its IPv4 address is OVN's answer by DHCP, and must be the one that the
/// plugin was given; the IPv6 one is configured, its router is the one that advertises itself.
pub(crate) fn address(nic: &Nic) -> Result<String> {
    let mut script = format!(
        "set -e\nread -r mac </sys/class/net/eth0/address\n[ \"$mac\" = '{}' ]\n\
         read -r mtu </sys/class/net/eth0/mtu\n[ \"$mtu\" = {} ]\n\
         echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad\nip link set eth0 up\n\
         cat >/run/dhcp.sh <<'END'\n{DHCP}END\n\
         chmod +x /run/dhcp.sh\nudhcpc -i eth0 -f -n -q -t 10 -T 1 -s /run/dhcp.sh >&2\n\
         ip -4 addr show dev eth0 | grep -qF ' {}/'\n",
        nic.mac,
        nic.mtu,
        nic.ip(false)?
    );
    let v6 = nic.addresses.iter().find(|address| address.contains(':'));
    let v6 = v6.context("the port has no IPv6 address")?;
    script += &format!(
        "ip -6 addr add {v6} dev eth0\nuntil ip -6 route | grep -q ^default; do usleep 100000; done\n"
    );
    Ok(script)
}

/// What udhcpc calls at each step.
const DHCP: &str = r#"#!/bin/sh
[ "$1" = bound ] || exit 0
read -r asked </run/asked || asked=0
echo $((asked + 1)) >/run/asked
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
"#;
