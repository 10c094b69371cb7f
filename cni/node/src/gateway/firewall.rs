//! The rules of table `outboard`: pods' traffic to the outside leaves with the node's address (design §4). Pure.
//!
//! There is no `accept` for forwarded traffic: in nftables an accept of one table does not overrule another's drop. A host
//! firewall that drops forwarded packets must let `ob0` pass.

use std::fmt::Write;

use api::NodeFacts;
use api::names::GATEWAY_IFNAME;
use ipnet::IpNet;

/// Body of the table. Families that have no masqueraded subnet get no rule.
pub(crate) fn ruleset(facts: &NodeFacts) -> String {
    let mut body = String::new();
    let mut rules = String::new();
    for family in [Family::V4, Family::V6] {
        let Words { digit, keyword } = family.words();
        let sources = family.of(&facts.nat_cidrs);
        if sources.is_empty() {
            continue;
        }
        let inside: Vec<IpNet> = facts
            .pod_cidrs
            .iter()
            .chain(&facts.join_cidrs)
            .chain(&facts.nat_cidrs)
            .copied()
            .collect();
        push_set(&mut body, &format!("nat{digit}"), keyword, &sources);
        push_set(
            &mut body,
            &format!("inside{digit}"),
            keyword,
            &family.of(&inside),
        );
        let _ = writeln!(
            rules,
            "\t\t{keyword} saddr @nat{digit} {keyword} daddr != @inside{digit} masquerade fully-random"
        );
    }
    body.push_str(
        "\tchain postrouting {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n",
    );
    let _ = writeln!(body, "\t\toifname \"{GATEWAY_IFNAME}\" return");
    body.push_str(&rules);
    body.push_str("\t}\n");
    body
}

enum Family {
    V4,
    V6,
}

struct Words {
    digit: char,
    keyword: &'static str,
}

impl Family {
    fn words(&self) -> Words {
        match self {
            Self::V4 => Words {
                digit: '4',
                keyword: "ip",
            },
            Self::V6 => Words {
                digit: '6',
                keyword: "ip6",
            },
        }
    }

    /// Those of this family, overlaps merged: nft refuses overlapping intervals.
    fn of(&self, nets: &[IpNet]) -> Vec<IpNet> {
        let wanted: Vec<IpNet> = nets
            .iter()
            .filter(|net| {
                matches!(
                    (self, net),
                    (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_))
                )
            })
            .map(IpNet::trunc)
            .collect();
        let mut merged = IpNet::aggregate(&wanted);
        merged.sort();
        merged
    }
}

fn push_set(body: &mut String, name: &str, keyword: &str, nets: &[IpNet]) {
    let kind = if keyword == "ip" {
        "ipv4_addr"
    } else {
        "ipv6_addr"
    };
    let elements = nets
        .iter()
        .map(IpNet::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    let _ = writeln!(
        body,
        "\tset {name} {{\n\t\ttype {kind}\n\t\tflags interval\n\t\telements = {{ {elements} }}\n\t}}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &str) -> Vec<IpNet> {
        list.split_whitespace()
            .map(|net| net.parse().unwrap())
            .collect()
    }

    #[test]
    fn dual_stack_masquerade() {
        let facts = NodeFacts {
            pod_cidrs: nets("10.244.0.0/16 fd00:10:244::/64 10.245.0.0/16"),
            service_cidrs: nets("10.96.0.0/16"),
            join_cidrs: nets("100.64.0.0/16 fd98::/64"),
            nat_cidrs: nets("10.244.0.0/16 fd00:10:244::/64"),
        };
        insta::assert_snapshot!(ruleset(&facts), @r#"
        	set nat4 {
        		type ipv4_addr
        		flags interval
        		elements = { 10.244.0.0/16 }
        	}
        	set inside4 {
        		type ipv4_addr
        		flags interval
        		elements = { 10.244.0.0/15, 100.64.0.0/16 }
        	}
        	set nat6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:10:244::/64 }
        	}
        	set inside6 {
        		type ipv6_addr
        		flags interval
        		elements = { fd00:10:244::/64, fd98::/64 }
        	}
        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		oifname "ob0" return
        		ip saddr @nat4 ip daddr != @inside4 masquerade fully-random
        		ip6 saddr @nat6 ip6 daddr != @inside6 masquerade fully-random
        	}
        "#);
    }

    #[test]
    fn nothing_to_masquerade_leaves_an_empty_chain() {
        insta::assert_snapshot!(ruleset(&NodeFacts::default()), @r#"
        	chain postrouting {
        		type nat hook postrouting priority srcnat; policy accept;
        		oifname "ob0" return
        	}
        "#);
    }
}
