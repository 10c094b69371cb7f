//! The rules of table `outboard-vip`. Pure.
//!
//! One lookup finds the service, its chain picks an endpoint: the cost of a connection does not grow with the number of services.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use api::names::GATEWAY_IFNAME;

use super::service::Service;

/// Body of the table for `services` on a node whose ob0 has `addresses`.
pub(crate) fn ruleset(services: &[Service], addresses: &[IpAddr]) -> String {
    let mut body = String::new();
    let (v4, v6): (Vec<&Service>, Vec<&Service>) =
        services.iter().partition(|service| service.vip.is_ipv4());
    push_map(&mut body, "services4", "ipv4_addr", &v4);
    push_map(&mut body, "services6", "ipv6_addr", &v6);
    for service in services {
        push_service(&mut body, service);
    }
    body.push_str(concat!(
        "\tchain output {\n",
        "\t\ttype nat hook output priority -100; policy accept;\n",
        "\t\tmeta l4proto . ip daddr . th dport vmap @services4\n",
        "\t\tmeta l4proto . ip6 daddr . th dport vmap @services6\n",
        "\t}\n",
        "\tchain postrouting {\n",
        "\t\ttype nat hook postrouting priority srcnat; policy accept;\n",
    ));
    // The source address was chosen for ob0, where the route to the services goes; elsewhere nobody knows the way back to it.
    let _ = writeln!(
        body,
        "\t\toifname {{ \"lo\", \"{GATEWAY_IFNAME}\" }} return"
    );
    for address in addresses {
        let _ = writeln!(body, "\t\t{} saddr {address} masquerade", keyword(*address));
    }
    body.push_str("\t}\n");
    body
}

fn push_map(body: &mut String, name: &str, kind: &str, services: &[&Service]) {
    let _ = writeln!(
        body,
        "\tmap {name} {{\n\t\ttype inet_proto . {kind} . inet_service : verdict"
    );
    if !services.is_empty() {
        let elements: Vec<String> = services
            .iter()
            .map(|service| {
                let Service { protocol, vip, .. } = service;
                format!(
                    "\t\t\t{} . {} . {} : goto {}",
                    protocol.name(),
                    vip.ip(),
                    vip.port(),
                    chain(service)
                )
            })
            .collect();
        let _ = writeln!(body, "\t\telements = {{\n{}\n\t\t}}", elements.join(",\n"));
    }
    body.push_str("\t}\n");
}

fn push_service(body: &mut String, service: &Service) {
    let protocol = service.protocol.name();
    let family = keyword(service.vip.ip());
    let endpoints: Vec<&SocketAddr> = service.endpoints.iter().collect();
    let target = match endpoints.as_slice() {
        // `served` lets no service without an endpoint through.
        [] => return,
        [only] => format!("{family} to {only}"),
        many => {
            let pick = if service.affinity {
                format!("jhash {family} saddr mod {} seed 0x6f62", many.len())
            } else {
                format!("numgen random mod {}", many.len())
            };
            let choices: Vec<String> = many
                .iter()
                .enumerate()
                .map(|(index, one)| format!("{index} : {} . {}", one.ip(), one.port()))
                .collect();
            format!(
                "{family} addr . port to {pick} map {{ {} }}",
                choices.join(", ")
            )
        }
    };
    let _ = writeln!(
        body,
        "\tchain {} {{\n\t\tmeta l4proto {protocol} dnat {target}\n\t}}",
        chain(service)
    );
}

/// Colons may not be in a name.
fn chain(service: &Service) -> String {
    let Service { protocol, vip, .. } = service;
    format!("{}-{}-{}", protocol.name(), vip.ip(), vip.port()).replace(':', "_")
}

fn keyword(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

#[cfg(test)]
mod tests {
    use super::super::service::Protocol;
    use super::*;

    #[test]
    fn both_families_and_all_protocols() {
        let mut sticky = Service::of(
            Protocol::Udp,
            "10.96.0.10:53",
            &["198.18.0.1:53", "10.244.0.2:53"],
        );
        sticky.affinity = true;
        let services = [
            Service::of(
                Protocol::Tcp,
                "10.96.0.1:443",
                &["198.18.0.1:6443", "198.18.0.2:6443"],
            ),
            Service::of(Protocol::Tcp, "[fd01::1]:443", &["[fd02::1]:6443"]),
            sticky,
            Service::of(
                Protocol::Sctp,
                "[fd01::2]:9",
                &["[fd02::1]:9", "[fd02::2]:9"],
            ),
        ];
        let addresses = ["100.64.0.2".parse().unwrap(), "fd98::2".parse().unwrap()];
        insta::assert_snapshot!(ruleset(&services, &addresses));
    }

    #[test]
    fn no_service_leaves_empty_maps() {
        insta::assert_snapshot!(ruleset(&[], &[]));
    }
}
