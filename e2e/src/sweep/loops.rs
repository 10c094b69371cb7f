//! Loop devices of a lab. They are the machine's: no end of a process or of a namespace takes them away.
//!
//! A volume's loop is over a FUSE export in the lab's own exports directory (manifests/overlays/lab-csi); a claim of raw block has
//! a second one, kubelet's, over the first one's node in /dev. What a loop is over is known only while that lives: the kernel
//! shows the path as the mount namespace of the volume's daemon has it, and answers for no device of a dead one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{shell, wait};

/// A loop device and what it is over, if that lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loop {
    /// `/dev/loop7`
    name: String,
    #[serde(rename = "back-maj:min")]
    device: Option<String>,
    #[serde(rename = "back-ino")]
    inode: Option<u64>,
}

#[derive(Deserialize)]
struct Listed {
    loopdevices: Vec<Loop>,
}

/// The loops over exports of lab `id`, by their path or by what the namespaces of these processes have mounted; and the loops
/// over those.
pub(super) fn of_lab(id: u8, pids: &BTreeSet<i32>) -> Result<Vec<Loop>> {
    let mut seen = BTreeSet::new();
    let mut exports = BTreeSet::new();
    for pid in pids {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt"));
        if namespace.is_ok_and(|namespace| seen.insert(namespace)) {
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"));
            exports.extend(exported(&mounts.unwrap_or_default()));
        }
    }
    let of_exports = |one: &Loop| {
        let mounted = one
            .device
            .as_ref()
            .is_some_and(|device| exports.contains(device));
        mounted || backing_file(&one.name).starts_with(&format!("/run/outboard/exports/{id}-"))
    };
    let (mut found, mut rest): (Vec<_>, Vec<_>) = list()?.into_iter().partition(of_exports);
    let mut from = 0;
    while from < found.len() {
        let nodes: Vec<_> = found[from..]
            .iter()
            .filter_map(|one| node(&one.name))
            .collect();
        from = found.len();
        let on_top = |one: &Loop| {
            let over = one.device.clone().zip(one.inode);
            over.is_some_and(|over| nodes.contains(&over))
        };
        let (more, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(on_top);
        found.extend(more);
        rest = others;
    }
    Ok(found)
}

/// Takes away those that are not others by now, the last made first, and waits until they are gone.
pub(super) fn detach(loops: &[Loop]) -> Result<()> {
    wait::until_true(
        "the end of the lab's loop devices",
        Duration::from_secs(15),
        || {
            let there = list()?;
            let still = |one: &Loop| {
                let now = there.iter().find(|now| now.name == one.name);
                // What is dead has no device: a name that was given to another one has.
                now.is_some_and(|now| now.device.is_none() || now == one)
            };
            let left: Vec<_> = loops.iter().rev().filter(|one| still(one)).collect();
            for one in &left {
                // One that is still mounted in a namespace that is ending goes at its last close.
                let _ = shell::run(&["losetup", "--detach", &one.name]);
            }
            Ok(left.is_empty())
        },
    )
}

fn backing_file(name: &str) -> String {
    let name = name.trim_start_matches("/dev/");
    fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).unwrap_or_default()
}

/// Device numbers of the FUSE exports in a mountinfo.
fn exported(mountinfo: &str) -> BTreeSet<String> {
    let device = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let fields: Vec<&str> = before.split(' ').collect();
        let (device, point) = (fields.get(2)?, fields.get(4)?);
        let ours = after.starts_with("fuse") && point.starts_with("/run/outboard/exports/");
        ours.then(|| (*device).to_owned())
    };
    mountinfo.lines().filter_map(device).collect()
}

fn list() -> Result<Vec<Loop>> {
    let devices = fs::read_dir("/sys/block").context("cannot read /sys/block")?;
    let made = devices.flatten().map(|device| device.path());
    let made = made.filter(|device| device.join("loop/backing_file").exists());
    Ok(made.map(|device| look(&device)).collect())
}

/// One at a time and not for long: to ask is to ask the storage daemon behind it, which may be anybody's, and hang.
fn look(device: &Path) -> Loop {
    let name = device.file_name().unwrap_or_default().to_string_lossy();
    let name = format!("/dev/{name}");
    let listed = shell::run(&[
        "timeout",
        "--signal=KILL",
        "2",
        "losetup",
        "--list",
        "--json",
        "--output",
        "NAME,BACK-MAJ:MIN,BACK-INO",
        &name,
    ]);
    let listed: Option<Listed> = listed
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok());
    let one = listed.and_then(|listed| listed.loopdevices.into_iter().next());
    let (device, inode) = one.map_or((None, None), |one| (one.device, one.inode));
    Loop {
        name,
        device: device.map(|device| device.trim().to_owned()),
        inode,
    }
}

/// Device and inode of a node in /dev, as losetup writes them.
fn node(name: &str) -> Option<(String, u64)> {
    let about = fs::metadata(Path::new(name)).ok()?;
    let device = about.dev();
    let numbers = format!(
        "{}:{}",
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device)
    );
    Some((numbers, about.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_told_from_other_mounts() {
        let text = "\
36 35 0:31 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,mode=755
40 36 0:77 / /run/outboard/exports/31-n1/5cfc5ac4 rw,nosuid,nodev shared:9 - fuse /dev/fuse rw,user_id=0
41 36 0:78 / /home/somebody rw - fuse.sshfs x rw
";
        assert_eq!(exported(text), BTreeSet::from(["0:77".to_owned()]));
    }

    #[test]
    fn a_loop_over_a_loop_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        fs::write(&image, vec![0; 1 << 20]).unwrap();
        let first =
            shell::run(&["losetup", "--find", "--show", &image.display().to_string()]).unwrap();
        let second = shell::run(&["losetup", "--find", "--show", &first]).unwrap();
        let all = list().unwrap();
        let of = |name: &str| all.iter().find(|one| one.name == name).cloned().unwrap();
        assert_eq!(node(&first), of(&second).device.zip(of(&second).inode));
        detach(&[of(&first), of(&second)]).unwrap();
        let left = list().unwrap();
        assert!(
            !left
                .iter()
                .any(|one| one.name == first || one.name == second),
            "{left:?}"
        );
    }
}
