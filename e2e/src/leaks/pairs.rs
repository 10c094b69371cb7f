//! Hosts behind DPUs: their journals, and the functions of their cards. Pure.

use std::collections::BTreeMap;

use super::compare::Owners;
use super::observe::{Interface, OnNode, Record};

/// Whether an interface on a DPU is its host's own, which no pod owns.
pub(super) fn is_hosts_own(interface: &Interface, node: &OnNode) -> bool {
    let of = |host: &String| interface.iface_id == format!("node/{host}");
    interface.uid.is_empty() && node.ports_of.iter().skip(1).any(of)
}

/// Whether a record is of a pod of the host, or of the host itself (on either side of the pair).
pub(super) fn is_of(record: &Record, node: &OnNode, owners: &Owners<'_>) -> bool {
    let own = record.uid.is_empty();
    own || (node.functions.is_some()
        && owners
            .get(record.uid.as_str())
            .is_some_and(|pod| pod.node == node.name))
}

/// Every function is either at home or recorded as somebody's, and every pod of the host has one.
pub(super) fn functions(node: &OnNode, owners: &Owners<'_>, leaks: &mut Vec<String>) {
    let Some(home) = &node.functions else {
        return;
    };
    let at = &node.name;
    let mut holders: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for record in &node.journal {
        let who = format!("{} of sandbox {}", record.ifname, record.sandbox);
        match record.function {
            Some(function) => holders.entry(function).or_default().push(who),
            None => leaks.push(format!("{at}: the record of {who} names no function")),
        }
    }
    for (function, who) in &holders {
        if home.contains(function) {
            leaks.push(format!(
                "{at}: function {function} is at home, and recorded as {}'s",
                who[0]
            ));
        }
        if who.len() > 1 {
            leaks.push(format!(
                "{at}: function {function} is recorded as {}'s",
                who.join(" and ")
            ));
        }
    }
    let highest = home
        .iter()
        .chain(holders.keys())
        .max()
        .copied()
        .unwrap_or_default();
    for function in
        (0..=highest).filter(|number| !home.contains(number) && !holders.contains_key(number))
    {
        leaks.push(format!(
            "{at}: function {function} is not at home, and nobody has it"
        ));
    }
    for pod in owners
        .values()
        .filter(|pod| pod.node == *at && !pod.ips.is_empty())
    {
        let record = |record: &&Record| record.uid == pod.uid && record.ifname == "eth0";
        if node.journal.iter().find(record).is_none() {
            leaks.push(format!(
                "{at}: pod {} has no record for eth0",
                pod.full_name()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pods::Pod;

    fn host(home: &[u32], held: &[(&str, u32)]) -> OnNode {
        let record = |(uid, function): &(&str, u32)| Record {
            uid: (*uid).into(),
            sandbox: format!("s-{uid}"),
            ifname: "eth0".into(),
            function: Some(*function),
        };
        OnNode {
            name: "h1".into(),
            functions: Some(home.iter().copied().collect()),
            journal: held.iter().map(record).collect(),
            ..OnNode::default()
        }
    }

    fn found(node: &OnNode) -> String {
        let pod = Pod {
            uid: "u".into(),
            node: "h1".into(),
            ips: vec!["10.0.0.5".into()],
            ..Pod::default()
        };
        let owners = Owners::from([("u", &pod)]);
        let mut leaks = Vec::new();
        functions(node, &owners, &mut leaks);
        for record in &node.journal {
            if !is_of(record, node, &owners) {
                leaks.push(format!("{} is a stranger", record.uid));
            }
        }
        leaks.join("\n")
    }

    #[test]
    fn every_function_is_somewhere() {
        assert_eq!(found(&host(&[1, 2], &[("u", 0)])), "");
        // The host's own interface has one, too.
        assert_eq!(found(&host(&[2], &[("u", 0), ("", 1)])), "");
        assert!(found(&host(&[2], &[("u", 0)])).contains("function 1 is not at home"));
        assert!(
            found(&host(&[0, 1], &[("u", 0)]))
                .contains("at home, and recorded as eth0 of sandbox s-u")
        );
        assert!(
            found(&host(&[1], &[("u", 0), ("", 0)]))
                .contains("recorded as eth0 of sandbox s-u and")
        );
    }

    #[test]
    fn records_and_pods_belong_together() {
        assert!(found(&host(&[0, 1], &[])).contains("has no record"));
        assert_eq!(
            found(&host(&[1], &[("u", 0), ("gone", 2)])),
            "gone is a stranger"
        );
    }
}
