//! What OVN answers to a virtual machine that asks for its address (ovn-nb(5), DHCP_Options).
//!
//! A container's interface is given its addresses by cni-node. A VM whose NIC is a vhost-user port has no such help: its guest asks by
//! DHCP, DHCPv6 and router solicitation, and every chassis answers for the ports that it has, from the rows here. Pods are not answered:
//! only VMs' ports refer to these rows. Router advertisements are sent to who solicits one; cni-node has pods ignore them.

use crate::rows::{DesiredRow, RowId};
use api::{Layout, Mac};
use ipnet::IpNet;
use std::net::IpAddr;

/// Seconds. OVN keeps no leases: an address is a VM's until the VM is deleted; a guest need not ask often.
const LEASE_TIME: &str = "3600";

/// The columns of a port that refer to these rows.
const V4: &str = "dhcpv4_options";
const V6: &str = "dhcpv6_options";

/// A Subnet's rows, one for each family that it has.
pub(super) fn rows(subnet: &str, layout: &Layout, mtu: Option<u32>) -> Vec<DesiredRow> {
    let networks = layout.cidrs.iter().zip(&layout.gateways);
    networks
        .map(|(cidr, gateway)| {
            let mac = Mac::of(layout.gateways[0]).to_string();
            DesiredRow::new("DHCP_Options", id(subnet, *gateway))
                .set("cidr", cidr.to_string())
                .set("options", ovsdb::Datum::map(options(*gateway, mac, mtu)))
        })
        .collect()
}

fn options(gateway: IpAddr, mac: String, mtu: Option<u32>) -> Vec<(String, String)> {
    let mut options: Vec<(&str, String)> = match gateway {
        IpAddr::V4(_) => vec![
            ("lease_time", LEASE_TIME.to_owned()),
            ("router", gateway.to_string()),
            ("server_id", gateway.to_string()),
            ("server_mac", mac),
        ],
        IpAddr::V6(_) => vec![("server_id", mac)],
    };
    if gateway.is_ipv4() {
        options.extend(mtu.map(|mtu| ("mtu", mtu.to_string())));
    }
    let owned = |(key, value): (&str, String)| (key.to_owned(), value);
    options.into_iter().map(owned).collect()
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
