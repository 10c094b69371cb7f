//! The rewriting of a domain against whole domains (`tests/golden/<shape>/`) and against generated ones.
//!
//! A shape is a directory: `in.xml` and `vmi.json` as virt-launcher sends them, `sources.json` as the files are, and `out.xml`. After a
//! change that is meant: `UPDATE_GOLDEN=1 cargo test -p shim --all-features --test rewrite`, and read the difference.
#![allow(clippy::unwrap_used, reason = "a test")]

mod generated;
#[path = "../hooks/lossy.rs"]
mod lossy;

use std::path::{Path, PathBuf};

use shim::annotation;
use shim::domain::{Block, Error, rewrite};
use shim::resolver::links::{Link, Links};
use shim::resolver::{Nic, Sources, dra, resolve};
use shim::vmi::Vmi;

const HOOKS: &str = "/var/run/kubevirt-hooks";

/// One directory of `tests/golden`.
struct Shape {
    name: String,
    directory: PathBuf,
    xml: String,
    vmi: Vmi,
    nics: Vec<Nic>,
    blocks: Vec<Block>,
}

impl Shape {
    fn read(directory: &Path) -> Self {
        let file = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        let vmi = Vmi::from_json(file("vmi.json").as_bytes()).unwrap();
        let sources: serde_json::Value = serde_json::from_str(&file("sources.json")).unwrap();
        let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
        let claims = sources["dra"].as_array().into_iter().flatten();
        let claims = claims.map(|claim| dra::File {
            claim: text(&claim["claim"]).unwrap(),
            request: text(&claim["request"]).unwrap(),
            text: text(&claim["text"]).unwrap(),
        });
        let sources = Sources {
            network_info: text(&sources["network_info"]),
            annotations: text(&sources["annotations"]),
            dra: claims.collect(),
            links: links(&sources["links"]),
            hooks: HOOKS.into(),
        };
        let asked = vmi.annotation(annotation::BLOCK).unwrap_or_default();
        Self {
            name: directory.file_name().unwrap().to_string_lossy().into(),
            xml: file("in.xml"),
            nics: resolve(&vmi, "vhostuser", &sources).unwrap(),
            blocks: Block::asked(asked, &vmi, HOOKS).unwrap(),
            directory: directory.to_owned(),
            vmi,
        }
    }

    fn rewrite(&self, xml: &str) -> String {
        rewrite(xml, &self.vmi, &self.nics, &self.blocks).unwrap()
    }
}

/// By name, each with its files of sysfs.
fn links(sources: &serde_json::Value) -> Option<Links> {
    let text = |value: &serde_json::Value| value.as_str().map(ToOwned::to_owned);
    let link = |files: &serde_json::Value| Link {
        alias: text(&files["ifalias"]).unwrap_or_default(),
        mtu: text(&files["mtu"]).unwrap_or_default(),
        tun_flags: text(&files["tun_flags"]),
    };
    let links = sources.as_object()?.iter();
    Some(Links(links.map(|(n, l)| (n.clone(), link(l))).collect()))
}

fn shapes() -> Vec<Shape> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let entries = std::fs::read_dir(directory).unwrap();
    let mut directories: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    directories.sort();
    let shapes: Vec<_> = directories.iter().map(|d| Shape::read(d)).collect();
    assert!(shapes.len() > 30, "only {} shapes", shapes.len());
    shapes
}

#[test]
fn every_shape_becomes_what_was_looked_at() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut different = Vec::new();
    for shape in shapes() {
        let path = shape.directory.join("out.xml");
        let ours = shape.rewrite(&shape.xml);
        if update {
            std::fs::write(&path, &ours).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if ours != expected {
            different.push(format!("--- {}\n{ours}", shape.name));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn a_second_time_changes_nothing() {
    for shape in shapes() {
        let once = shape.rewrite(&shape.xml);
        assert_eq!(shape.rewrite(&once), once, "{}", shape.name);
    }
}

/// KubeVirt passes our answer through a struct that loses half of it, and asks again; up to three times.
#[test]
fn what_kubevirt_loses_in_between_is_there_again() {
    for shape in shapes().iter().filter(|s| s.name != "strange") {
        let mut answer = shape.rewrite(&shape.xml);
        for call in 2..5 {
            let lost = lossy::round_trip(&answer);
            answer = shape.rewrite(&lost);
            let name = format!("{}, call {call}", shape.name);
            assert_eq!(shape.rewrite(&answer), answer, "{name}");
            complete(&answer, shape, &name);
        }
    }
}

/// Everything that a back end needs is in the XML, once.
fn complete(xml: &str, shape: &Shape, name: &str) {
    use shim::resolver::Plug;
    for nic in &shape.nics {
        let once = |what: &str| assert_eq!(xml.matches(what).count(), 1, "{name}: {what}\n{xml}");
        once(&format!("<alias name='ua-{}'/>", nic.name));
        once(&format!("<mac address='{}'/>", nic.mac));
        if let Plug::VhostUser { path, mode } = &nic.plug {
            let mode = mode.word();
            once(&format!("<source type='unix' path='{path}' mode='{mode}'"));
            assert!(
                !xml.contains("<mtu size='1442'"),
                "{name}: libvirt would not start it"
            );
            if let Some(mtu) = nic.mtu.filter(|mtu| *mtu != 1500) {
                once(&format!("name='host_mtu' type='unsigned' value='{mtu}'"));
            }
            assert!(xml.contains("shared"), "{name}: memory is not shared");
            assert!(!xml.contains("private\""), "{name}: some memory is private");
        }
    }
    for block in &shape.blocks {
        let source = format!("<source type='unix' path='{}'/>", block.path);
        assert_eq!(xml.matches(&source).count(), 1, "{name}: {source}");
        let flushed = "<qemu:property name='config-wce' type='bool' value='false'/>";
        assert_eq!(
            xml.matches(flushed).count(),
            shape.blocks.len(),
            "{name}: the guest would not flush\n{xml}"
        );
    }
}

/// Each line of the input that is not of a device of ours, nor of the memory, is in the output.
#[test]
fn lines_of_others_stay() {
    let ours = [
        "memoryBacking",
        "<source",
        "<access",
        "<cell",
        "<memory ",
        "<devices />",
    ];
    for shape in shapes().iter().filter(|s| s.name != "strange") {
        let out = shape.rewrite(&shape.xml);
        let theirs = foreign_lines(shape);
        for line in theirs
            .iter()
            .filter(|l| !ours.iter().any(|o| l.contains(o)))
        {
            assert!(out.contains(line.as_str()), "{}: {line}", shape.name);
        }
    }
}

/// Lines outside of the elements that are replaced.
fn foreign_lines(shape: &Shape) -> Vec<String> {
    let mut xml = shape.xml.clone();
    let names = shape.nics.iter().map(|n| n.name.as_str());
    let names: Vec<_> = names
        .chain(shape.blocks.iter().map(|b| b.volume.as_str()))
        .collect();
    for tag in ["interface", "disk"] {
        let (open, close) = (format!("<{tag} "), format!("</{tag}>"));
        let mut kept = String::new();
        let mut rest = xml.as_str();
        while let Some(start) = rest.find(&open) {
            let Some(length) = rest[start..].find(&close) else {
                break;
            };
            let element = &rest[start..start + length];
            let is_ours = names.iter().any(|name| {
                [
                    format!("ua-{name}\""),
                    format!("{}\"", shim::vmi::tap(name)),
                ]
                .iter()
                .any(|mark| element.contains(mark.as_str()))
            });
            let end = if is_ours { start } else { start + length };
            kept.push_str(&rest[..end]);
            rest = &rest[start + length..];
        }
        kept.push_str(rest);
        xml = kept;
    }
    let lines = xml
        .lines()
        .map(|line| line.trim_end_matches('\r').to_owned());
    lines.filter(|line| line.contains('>')).collect()
}

fn refused(xml: &str, blocks: &[Block]) -> String {
    let vmi = Vmi::default();
    rewrite(xml, &vmi, &[], blocks).unwrap_err().to_string()
}

#[test]
fn what_is_no_domain_is_refused_with_a_sentence() {
    for (xml, says) in [
        ("", "has no root"),
        ("<domain>", "ends within an element"),
        ("<domain></devices></domain>", "not well formed"),
        ("<domain/><domain/>", "a second root"),
        ("<network><devices/></network>", "its root is not <domain>"),
        ("<domain><name>x</name></domain>", "it has no devices"),
        ("<domain><devices/></domain>trailing", "text outside"),
        (
            "<!DOCTYPE domain [<!ENTITY x 'y'>]><domain><devices/></domain>",
            "document type",
        ),
        ("<domain><devices>&</devices></domain>", "not well formed"),
        ("not xml at all", "text outside"),
    ] {
        let sentence = refused(xml, &[]);
        assert!(sentence.contains(says), "{xml}: {sentence}");
    }
}

#[test]
fn a_disk_that_cannot_be_vhost_user_is_refused_with_a_remedy() {
    let vmi = volumes(r#"{"name": "a", "persistentVolumeClaim": {"claimName": "c"}}"#);
    let block = |volume: &str| Block::asked(volume, &vmi, HOOKS).unwrap();
    let domain = |disk: &str| format!("<domain><devices>{disk}</devices></domain>");
    for (disk, says) in [
        (
            "<disk><alias name='ua-b'/></disk>",
            "among spec.domain.devices.disks",
        ),
        (
            "<disk device='cdrom'><alias name='ua-a'/><target dev='sda' bus='sata'/></disk>",
            "make it a disk",
        ),
        (
            "<disk device='disk'><alias name='ua-a'/><target dev='sda' bus='scsi'/></disk>",
            "set disk.bus to virtio",
        ),
        (
            "<disk><alias name='ua-a'/><target dev='vda' bus='virtio'/><readonly/></disk>",
            "read-only",
        ),
    ] {
        let sentence = refused(&domain(disk), &block("a"));
        assert!(sentence.contains(says), "{disk}: {sentence}");
    }
}

/// A VM with these volumes.
fn volumes(list: &str) -> Vmi {
    Vmi::from_json(format!(r#"{{"spec": {{"volumes": [{list}]}}}}"#).as_bytes()).unwrap()
}

#[test]
fn volumes_are_named_with_their_queues_and_found_by_their_claims() {
    let vmi = volumes(
        r#"{"name": "root", "dataVolume": {"name": "linux"}},
        {"name": "data", "persistentVolumeClaim": {"claimName": "db-0"}}"#,
    );
    let blocks = Block::asked(" root , data:4,", &vmi, HOOKS).unwrap();
    let named: Vec<_> = blocks
        .iter()
        .map(|b| (b.volume.as_str(), b.queues, b.path.as_str()))
        .collect();
    let path = |claim: &str| format!("/var/run/kubevirt-hooks/outboard/blk/{claim}/disk.sock");
    assert_eq!(
        named,
        [("root", 1, &*path("linux")), ("data", 4, &*path("db-0"))]
    );
}

#[test]
fn qemu_comes_again_only_to_a_daemon_that_keeps_what_is_in_flight() {
    let vmi = volumes(r#"{"name": "a", "persistentVolumeClaim": {"claimName": "c"}}"#);
    let mut blocks = Block::asked("a", &vmi, HOOKS).unwrap();
    let xml = "<domain><devices><disk><alias name='ua-a'/><target dev='vda' bus='virtio'/></disk></devices></domain>";
    let without = rewrite(xml, &vmi, &[], &blocks).unwrap();
    assert!(!without.contains("reconnect"), "{without}");
    blocks[0].reconnect = Some(1);
    let with = rewrite(&without, &vmi, &[], &blocks).unwrap();
    assert!(
        with.contains("<reconnect enabled='yes' timeout='1'/></source>"),
        "{with}"
    );
    assert_eq!(rewrite(&with, &vmi, &[], &blocks).unwrap(), with);
}

#[test]
fn what_has_no_socket_is_refused_with_a_remedy() {
    let claim = |volume: &str, claim: &str| {
        format!(r#"{{"name": "{volume}", "persistentVolumeClaim": {{"claimName": "{claim}"}}}}"#)
    };
    let list = [
        claim("a", "c"),
        claim("b", "c"),
        claim("up", "../c"),
        claim("none", ""),
        claim("long", &"x".repeat(61)),
        claim("just", &"x".repeat(60)),
        r#"{"name": "disk", "containerDisk": {"image": "x"}}"#.into(),
        r#"{"name": "hot", "dataVolume": {"name": "d", "hotpluggable": true}}"#.into(),
        r#"{"name": "later", "persistentVolumeClaim": {"claimName": "d", "hotpluggable": true}}"#
            .into(),
    ];
    let vmi = volumes(&list.join(","));
    for (asked, says) in [
        ("../x", "no name of a volume"),
        ("a/b", "no name of a volume"),
        (".a", "no name of a volume"),
        ("A", "no name of a volume"),
        (":2", "no name of a volume"),
        ("a:0", "from 1 to 256"),
        ("a:x", "from 1 to 256"),
        ("a:257", "from 1 to 256"),
        ("c", "among spec.volumes"),
        ("up", "no name of a claim"),
        ("none", "no name of a claim"),
        ("long", "a shorter name"),
        ("disk", "only a persistentVolumeClaim or a dataVolume"),
        ("hot", "leave hotpluggable out"),
        ("later", "leave hotpluggable out"),
        ("a,b", "volumes a and b are of one claim"),
        ("a,a:2", "volumes a and a are of one claim"),
    ] {
        let sentence = Block::asked(asked, &vmi, HOOKS).unwrap_err();
        assert!(sentence.contains(says), "{asked}: {sentence}");
    }
    assert!(Block::asked("just", &vmi, HOOKS).is_ok());

    let mut sealed = vmi;
    let json = br#"{"spec": {"domain": {"launchSecurity": {"sev": {}}}}}"#;
    sealed.spec.domain = Vmi::from_json(json).unwrap().spec.domain;
    let sentence = Block::asked("a", &sealed, HOOKS).unwrap_err();
    assert!(sentence.contains("launchSecurity"), "{sentence}");
    assert_eq!(Block::asked("", &sealed, HOOKS), Ok(Vec::new()));
}

#[test]
fn attributes_that_are_none_are_refused_where_they_are_looked_at() {
    for tag in [
        "<alias name=x/>",
        "<alias name/>",
        "<alias name='&nope;'/>",
        "<alias ='x'/>",
    ] {
        let xml = format!("<domain><devices><interface>{tag}</interface></devices></domain>");
        let nic = Nic {
            name: "net1".into(),
            ifname: "pod1".into(),
            plug: shim::resolver::Plug::Tap,
            mac: "02:00:00:00:00:01".into(),
            mtu: None,
            queues: None,
            said_by: "a test",
        };
        let error = rewrite(&xml, &Vmi::default(), &[nic], &[]).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{tag}: {error}");
    }
}
