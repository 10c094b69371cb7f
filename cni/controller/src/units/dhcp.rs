//! What OVN answers to a virtual machine that asks for its address (ovn-nb(5), DHCP_Options).
//!
//! A container's interface is given its addresses by cni-node. A VM whose NIC is a vhost-user port has no such help: its guest asks by
//! DHCP, DHCPv6 and router solicitation, and every chassis answers for the ports that it has, from the rows here. Pods are not answered:
//! only VMs' ports refer to these rows. Router advertisements are sent to who solicits one; cni-node has pods ignore them.

use crate::rows::{DesiredRow, RowId};
use api::{Layout, Mac};
use ipnet::IpNet;
use ovsdb::Datum;
use std::net::IpAddr;

/// Seconds. OVN keeps no leases: an address is a VM's until the VM is deleted; a guest need not ask often.
const LEASE_TIME: &str = "3600";

/// The columns of a port that refer to these rows.
const V4: &str = "dhcpv4_options";
const V6: &str = "dhcpv6_options";

/// A Subnet's rows, one for each family that it has.
pub(super) fn rows(subnet: &str, layout: &Layout, mtu: Option<u32>) -> Vec<DesiredRow> {
    let mac = Mac::of(layout.gateways[0]).to_string();
    let networks = layout.cidrs.iter().zip(&layout.gateways);
    networks
        .map(|(cidr, gateway)| {
            DesiredRow::new("DHCP_Options", id(subnet, *gateway))
                .set("cidr", cidr.to_string())
                .set("options", Datum::map(options(*gateway, &mac, mtu)))
        })
        .collect()
}

fn options(gateway: IpAddr, mac: &str, mtu: Option<u32>) -> Vec<(&'static str, String)> {
    if gateway.is_ipv6() {
        return vec![("server_id", mac.to_owned())];
    }
    let always = [
        ("lease_time", LEASE_TIME.to_owned()),
        ("router", gateway.to_string()),
        ("server_id", gateway.to_string()),
        ("server_mac", mac.to_owned()),
    ];
    let mtu = mtu.map(|mtu| ("mtu", mtu.to_string()));
    always.into_iter().chain(mtu).collect()
}

/// How the subnet's router announces itself to who solicits it; empty: not at all.
pub(super) fn advertisements(layout: &Layout, mtu: Option<u32>) -> Vec<(&'static str, String)> {
    if !layout.cidrs.iter().any(|cidr| matches!(cidr, IpNet::V6(_))) {
        return Vec::new();
    }
    let mode = ("address_mode", "dhcpv6_stateful".to_owned());
    let mtu = mtu.map(|mtu| ("mtu", mtu.to_string()));
    [mode].into_iter().chain(mtu).collect()
}

/// The port with what its owner is answered: a VM by the families of its addresses, a pod nothing.
pub(super) fn answered(row: DesiredRow, subnet: &str, vm: bool, ips: &[IpAddr]) -> DesiredRow {
    let of = |v4: bool| {
        let ip = ips.iter().find(|ip| vm && ip.is_ipv4() == v4);
        ip.map(|ip| RowId::new("DHCP_Options", id(subnet, *ip)))
    };
    row.refs(V4, of(true)).refs(V6, of(false))
}

/// Of the row for an address of that family.
fn id(subnet: &str, ip: IpAddr) -> String {
    format!("{subnet}/{}", if ip.is_ipv4() { "v4" } else { "v6" })
}
