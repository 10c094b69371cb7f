//! Generated domains: whatever others put into one stays, byte for byte, and a second time changes nothing.

use proptest::prelude::*;
use shim::domain::{Block, rewrite};
use shim::resolver::{Mode, Nic, Plug};
use shim::vmi::Vmi;

use crate::{HOOKS, lossy};

/// A node that nobody here knows, marked by a number so that it can be found again.
fn foreign() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        Just(String::new()),
        "[a-z é&&[^&<>]]{0,8}",
        Just("&amp;&#x20;&lt;".to_owned()),
        Just("<![CDATA[</devices><interface>]]>".to_owned()),
        Just("<!-- </interface> - -->".to_owned()),
        Just("<?pi a='b' ?>".to_owned()),
        Just("\n\t ".to_owned()),
    ];
    let attribute = prop_oneof![
        Just(String::new()),
        Just(" a=\"it's > 3\"".to_owned()),
        Just("  b = '&quot;&lt;'".to_owned()),
        Just("\n\tx:c='ua-net1'".to_owned()),
    ];
    let name = prop_oneof![
        Just("other"),
        Just("x:interface"),
        Just("filesystem"),
        Just("qemu:commandline"),
        Just("Interface"),
    ];
    let leaf = (name.clone(), attribute.clone(), text).prop_map(|(name, attribute, text)| {
        if text.is_empty() {
            format!("<{name}{attribute}/>")
        } else {
            format!("<{name}{attribute}>{text}</{name} >")
        }
    });
    leaf.prop_recursive(3, 12, 4, move |inner| {
        (
            name.clone(),
            attribute.clone(),
            prop::collection::vec(inner, 0..4),
        )
            .prop_map(|(name, attribute, children)| {
                format!("<{name}{attribute}>{}</{name}>", children.join("\n  "))
            })
    })
}

fn several() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(foreign(), 0..3)
}

fn blank() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("\n"),
        Just("\n    "),
        Just("\n\t\t"),
        Just(" ")
    ]
}

/// An interface that may be one of ours, in some state.
fn interface() -> impl Strategy<Value = String> {
    let alias = prop_oneof![
        Just("<alias name='ua-net1'/>"),
        Just("<alias name=\"ua-net2\"></alias>"),
        Just("<alias name='ua-other'/>"),
        Just("<alias name='placeholder-0'/>"),
        Just("<target dev='tap6c270ef2f25'/>"),
        Just(""),
    ];
    (alias, blank(), foreign(), prop::bool::ANY).prop_map(|(alias, blank, foreign, mac)| {
        let mac = if mac {
            "<mac address='02:00:00:00:00:99'/>"
        } else {
            ""
        };
        format!("<interface type='ethernet'>{blank}{mac}{blank}{alias}{foreign}{blank}</interface>")
    })
}

fn memory() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just("<memoryBacking/>"),
        Just("<memoryBacking></memoryBacking>"),
        Just("<memoryBacking><hugepages/></memoryBacking>"),
        Just(
            "<memoryBacking>\n <hugepages><page size='2'/></hugepages>\n <access mode='private'/>\n</memoryBacking>"
        ),
        Just("<memoryBacking ><source type = \"anonymous\" /><locked/></memoryBacking>"),
        Just("<memory>9</memory>\n  <memoryBacking><access/><source/></memoryBacking>"),
        Just("<cpu><numa><cell id='0' memAccess='private'/><cell id='1'/></numa></cpu>"),
    ]
}

/// The domain and the foreign nodes in it, in order.
fn domain() -> impl Strategy<Value = (String, Vec<String>)> {
    let parts = (several(), several(), several(), memory(), blank());
    let devices = prop::collection::vec((interface(), several()), 0..4);
    (parts, devices).prop_map(|((before, within, after, memory, blank), devices)| {
        let mut number = 0;
        let mut nodes = Vec::new();
        let mut mark = |node: &String| {
            number += 1;
            let node = format!("<m{number}/>{node}<m{number}/>");
            nodes.push(node.clone());
            node
        };
        let mut xml = String::from("<domain type='kvm' xmlns:x='urn:x' xmlns:qemu='urn:q'>");
        let put = |xml: &mut String, node: &str| {
            xml.push_str(blank);
            xml.push_str(node);
        };
        for node in &before {
            let node = mark(node);
            put(&mut xml, &node);
        }
        put(&mut xml, memory);
        put(&mut xml, "<devices>");
        for node in &within {
            let node = mark(node);
            put(&mut xml, &node);
        }
        for (interface, others) in &devices {
            put(&mut xml, interface);
            for node in others {
                let node = mark(node);
                put(&mut xml, &node);
            }
        }
        put(&mut xml, "</devices>");
        for node in &after {
            let node = mark(node);
            put(&mut xml, &node);
        }
        put(&mut xml, "</domain>");
        (xml, nodes)
    })
}

fn vmi(order: bool) -> Vmi {
    let mut names = ["net1", "other", "net2"];
    if order {
        names.reverse();
    }
    let interfaces: Vec<_> = names
        .iter()
        .map(|n| serde_json::json!({"name": n}))
        .collect();
    let vmi = serde_json::json!({"spec": {"domain": {"devices": {"interfaces": interfaces}}}});
    Vmi::from_json(vmi.to_string().as_bytes()).unwrap()
}

fn nic(name: &str, tap: bool, client: bool) -> Nic {
    let path = format!("{HOOKS}/it's <{name}>&\"here\".sock");
    let mode = if client { Mode::Client } else { Mode::Server };
    Nic {
        name: name.into(),
        ifname: "pod".into(),
        plug: if tap {
            Plug::Tap
        } else {
            Plug::VhostUser { path, mode }
        },
        mac: format!("02:00:00:00:00:{:02x}", name.len()),
        mtu: client.then_some(1400),
        queues: tap.then_some(4),
        said_by: "a test",
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn others_stay_and_twice_is_once(
        (xml, nodes) in domain(),
        order in prop::bool::ANY,
        tap in prop::bool::ANY,
        client in prop::bool::ANY,
    ) {
        let vmi = vmi(order);
        let nics = [nic("net1", tap, client), nic("net2", false, !client)];
        let once = rewrite(&xml, &vmi, &nics, &[]).unwrap();
        let twice = rewrite(&once, &vmi, &nics, &[]).unwrap();
        prop_assert_eq!(&twice, &once);
        let mut rest = once.as_str();
        for node in &nodes {
            let at = rest.find(node.as_str());
            prop_assert!(at.is_some(), "{node} is not in {once}");
            rest = &rest[at.unwrap() + node.len()..];
        }
        for name in ["net1", "net2"] {
            let alias = format!("<alias name='ua-{name}'/>");
            prop_assert_eq!(once.matches(&alias).count(), 1, "{}", once);
        }
        // What KubeVirt makes of it in between is repaired, and then repeated.
        let again = rewrite(&lossy::round_trip(&once), &vmi, &nics, &[]).unwrap();
        prop_assert_eq!(rewrite(&again, &vmi, &nics, &[]).unwrap(), again);
    }

    #[test]
    fn disks_keep_their_places(blank in blank(), boot in prop::bool::ANY, before in foreign()) {
        let boot = if boot { "<boot order='1'/>" } else { "" };
        let disk = |name: &str| format!(
            "{blank}<disk type='block' device='disk'><alias name='ua-{name}'/>{boot}<target dev='vd{name}' bus='virtio'/></disk>"
        );
        let xml = format!("<domain><devices>{}{before}{}</devices></domain>", disk("a"), disk("b"));
        let volume = |name: &str| format!(r#"{{"name": "{name}", "dataVolume": {{"name": "of-{name}"}}}}"#);
        let vmi = crate::volumes(&format!("{},{}", volume("a"), volume("b")));
        let blocks = Block::asked("b,a:2", &vmi, HOOKS).unwrap();
        let once = rewrite(&xml, &Vmi::default(), &[], &blocks).unwrap();
        prop_assert_eq!(&rewrite(&once, &Vmi::default(), &[], &blocks).unwrap(), &once);
        prop_assert!(once.contains(&before));
        prop_assert_eq!(once.matches("<boot order='1'/>").count(), if boot.is_empty() { 0 } else { 2 });
        let (a, b) = (once.find("blk/of-a/disk.sock").unwrap(), once.find("blk/of-b/disk.sock").unwrap());
        prop_assert!(a < b);
    }

    #[test]
    fn any_text_is_judged_without_panic(text in "[<>/a-d='\" &!\\[\\]-]{0,60}") {
        let _ = rewrite(&text, &Vmi::default(), &[nic("net1", false, false)], &[]);
        let wrapped = format!("<domain><devices>{text}</devices></domain>");
        if let Ok(once) = rewrite(&wrapped, &Vmi::default(), &[nic("net1", false, false)], &[]) {
            let twice = rewrite(&once, &Vmi::default(), &[nic("net1", false, false)], &[]);
            prop_assert_eq!(twice.unwrap(), once);
        }
    }
}
