//! What must hold for any bytes that virt-launcher or a file could hold. Used by the replay of the seeds and by the fuzz targets
//! `shim_domain` and `shim_sources`.

use shim::annotation;
use shim::domain::{Block, rewrite};
use shim::resolver::{LONGEST_PATH, Mode, Nic, Plug, Sources, dra, resolve};
use shim::vmi::Vmi;

const HOOKS: &str = "/var/run/kubevirt-hooks";

/// A domain XML. True if it is rewritten.
///
/// # Panics
/// A second time changes something, or one of our devices is not there once.
pub(crate) fn domain(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let vmi = br#"{"spec": {"domain": {"devices": {"interfaces": [
        {"name": "net1", "bootOrder": 1}, {"name": "other"}, {"name": "net2", "pciAddress": "0000:01:00.0"}]}},
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "claim"}}]}}"#;
    let vmi = Vmi::from_json(vmi).expect("a VMI");
    let nics = [nic("net1", Mode::Server), nic("net2", Mode::Client)];
    // The disk is there or not; both must do.
    let blocks = Block::asked("data", &vmi, HOOKS).expect("a volume");
    let blocks: &[Block] = if text.contains("ua-data") {
        &blocks
    } else {
        &[]
    };
    let Ok(once) = rewrite(text, &vmi, &nics, blocks) else {
        return false;
    };
    let twice = rewrite(&once, &vmi, &nics, blocks).expect("our own answer");
    assert_eq!(twice, once, "a second time changes something");
    for nic in &nics {
        let Plug::VhostUser { path, .. } = &nic.plug else {
            continue;
        };
        assert!(once.contains(&format!("path='{path}'")), "{once}");
    }
    true
}

fn nic(name: &str, mode: Mode) -> Nic {
    let path = format!("{HOOKS}/outboard/net/{name}.sock");
    Nic {
        name: name.into(),
        ifname: format!("pod{name}"),
        plug: Plug::VhostUser { path, mode },
        mac: "02:00:00:00:00:01".into(),
        mtu: Some(1442),
        queues: None,
        said_by: "a test",
    }
}

/// A file of the kind that the first byte says: `V` the VirtualMachineInstance, `N` network-info, `A` annotations, `D` DRA metadata. True if
/// every interface is resolved from it.
///
/// # Panics
/// What was resolved is not what the rewriting relies on.
pub(crate) fn sources(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else {
        return false;
    };
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut sources = Sources {
        hooks: HOOKS.into(),
        ..Sources::default()
    };
    let mut vmi = br#"{"metadata": {"name": "v", "namespace": "n"}, "spec": {
        "domain": {"devices": {"interfaces": [{"name": "net1", "macAddress": "02:00:00:00:00:01", "binding": {"name": "vhostuser"}}]}},
        "networks": [{"name": "net1", "multus": {"networkName": "n/fast"}, "resourceClaim": {"claimName": "c", "requestName": "r"}}]}}"#
        .to_vec();
    match kind {
        b'V' => vmi = bytes.to_vec(),
        b'N' => sources.network_info = Some(text),
        b'A' => sources.annotations = Some(text),
        b'D' => sources.dra.push(dra::File {
            claim: "c".into(),
            request: "r".into(),
            text,
        }),
        _ => return false,
    }
    let Ok(vmi) = Vmi::from_json(&vmi) else {
        return false;
    };
    blocks(&vmi);
    let Ok(nics) = resolve(&vmi, "vhostuser", &sources) else {
        return false;
    };
    for nic in &nics {
        assert_eq!(nic.mac.len(), 17);
        assert!(nic.mtu.is_none_or(|mtu| (68..=65535).contains(&mtu)));
        assert!(nic.queues.is_none_or(|queues| (1..=256).contains(&queues)));
        if let Plug::VhostUser { path, .. } = &nic.plug {
            assert!(
                path.starts_with('/') && path.len() <= LONGEST_PATH,
                "{path}"
            );
            assert!(!path.chars().any(char::is_control), "{path:?}");
        }
    }
    let rewritten = rewrite("<domain><devices/></domain>", &vmi, &nics, &[]);
    let once = rewritten.expect("whatever was resolved can be written");
    assert_eq!(rewrite(&once, &vmi, &nics, &[]), Ok(once.clone()));
    !nics.is_empty()
}

/// The sockets of volumes lie where they should, whatever the VM's author writes.
fn blocks(vmi: &Vmi) {
    let asked = vmi.annotation(annotation::BLOCK).unwrap_or_default();
    for block in Block::asked(asked, vmi, HOOKS).unwrap_or_default() {
        let claim = block.path.strip_prefix(HOOKS);
        let claim = claim.and_then(|rest| rest.strip_prefix("/outboard/blk/"));
        let claim = claim.and_then(|rest| rest.strip_suffix("/disk.sock"));
        let claim = claim.expect("the path of a claim's socket");
        assert!(!["", ".", ".."].contains(&claim) && !claim.contains('/'));
        assert!(block.path.len() <= LONGEST_PATH, "{}", block.path);
        assert!((1..=256).contains(&block.queues));
    }
}
