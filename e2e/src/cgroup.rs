//! A lab's cgroups: `outboard-lab/<id>/<part>` in every hierarchy.
//!
//! They serve two ends. Kubelets put their pods below them (`cgroupRoot`), and every process of a lab starts in one, so
//! that whatever a daemon spawned and forgot is still found by `down`: storage daemons, too, which leave their pod for
//! `<part>/engine` (manifests/overlays/lab-csi).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

const TOP: &str = "outboard-lab";
/// Of cgroup v1's hierarchies the one that only counts: being in it changes nothing for a process.
const TRACKER: &str = "pids";

/// One part of a lab: a node, or the ground under all nodes (`site`).
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    /// Absolute within each hierarchy, as kubelet's cgroupRoot wants it.
    path: String,
}

impl Cgroup {
    /// Makes the part's cgroup in every hierarchy.
    pub(crate) fn create(id: u8, part: &str) -> Result<Self> {
        let path = format!("/{TOP}/{id}/{part}");
        for root in hierarchies()? {
            let mut at = root.clone();
            for step in path.split('/').skip(1) {
                let parent = at.clone();
                at.push(step);
                fs::create_dir_all(&at)
                    .with_context(|| format!("cannot make cgroup {}", at.display()))?;
                inherit(&parent, &at);
            }
        }
        let group = Self { path };
        fs::create_dir_all(group.processes_dir()?)
            .with_context(|| format!("cannot make cgroup {}", group.path))?;
        Ok(group)
    }

    /// The same part, made earlier by another process.
    pub(crate) fn existing(id: u8, part: &str) -> Self {
        Self {
            path: format!("/{TOP}/{id}/{part}"),
        }
    }

    /// What kubelet gets as cgroupRoot.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Kills every process of the part but this one, waits until they are gone, and removes the pods' cgroups: a kubelet that finds
    /// any asks the runtime about each, for seconds.
    pub(crate) fn kill_all_but(&self, spared: i32) -> Result<()> {
        let mut trees = hierarchies()?;
        trees.iter_mut().for_each(|tree| tree.push(&self.path[1..]));
        let what = format!("the end of {}'s processes", self.path);
        end(&what, &trees, Some(spared))?;
        let pods: Vec<PathBuf> = trees.iter().map(|tree| tree.join("kubepods")).collect();
        let what = format!("the removal of {}'s pods' cgroups", self.path);
        wait::until_true(&what, Duration::from_secs(10), || {
            pods.iter().for_each(|tree| remove_tree(tree));
            Ok(pods.iter().all(|tree| !tree.exists()))
        })
    }

    /// The file into which a process of this part writes its pid before it becomes a daemon.
    pub(crate) fn processes_file(&self) -> Result<PathBuf> {
        Ok(self.processes_dir()?.join("cgroup.procs"))
    }

    fn processes_dir(&self) -> Result<PathBuf> {
        let all = hierarchies()?;
        let tracker = all
            .iter()
            .find(|h| h.ends_with(TRACKER))
            .or_else(|| all.first());
        let root = tracker.context("no cgroup hierarchy is mounted below /sys/fs/cgroup")?;
        // A leaf of its own: cgroup v2 allows no processes in a cgroup that has children with controllers.
        Ok(root.join(&self.path[1..]).join("system"))
    }
}

/// Every process in the cgroups of lab `id`.
pub(crate) fn pids(id: u8) -> Result<BTreeSet<i32>> {
    Ok(trees(id)?.iter().flat_map(|t| pids_below(t)).collect())
}

fn trees(id: u8) -> Result<Vec<PathBuf>> {
    let of = |h: &PathBuf| h.join(TOP).join(id.to_string());
    Ok(hierarchies()?.iter().map(of).collect())
}

/// Kills every process in the cgroups of lab `id` and removes them.
pub(crate) fn remove_lab(id: u8) -> Result<()> {
    let trees = trees(id)?;
    end(&format!("the end of lab {id}'s processes"), &trees, None)?;
    wait::until_true(
        &format!("the removal of lab {id}'s cgroups"),
        Duration::from_secs(10),
        || {
            trees.iter().for_each(|t| remove_tree(t));
            Ok(trees.iter().all(|t| !t.exists()))
        },
    )?;
    for root in hierarchies()? {
        // Fails while another lab is up, as it should.
        let _ = fs::remove_dir(root.join(TOP));
    }
    Ok(())
}

/// Kills every process in these cgroups until there is none.
fn end(what: &str, trees: &[PathBuf], spared: Option<i32>) -> Result<()> {
    wait::until_true(what, Duration::from_secs(30), || {
        let mut pids: BTreeSet<i32> = trees.iter().flat_map(|t| pids_below(t)).collect();
        pids.retain(|pid| Some(*pid) != spared);
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        reap(&pids);
        Ok(pids.is_empty())
    })
}

/// Children of this very process stay zombies, and in their cgroup, until somebody waits for them.
fn reap(pids: &BTreeSet<i32>) {
    use nix::sys::wait::{WaitPidFlag, waitpid};
    for pid in pids {
        let _ = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
    }
}

/// Mount points of all hierarchies: v1's, and v2's (which some machines have beside them, without controllers).
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let cgroups = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup" || kind == "cgroup2").then(|| PathBuf::from(at))
    });
    Ok(cgroups.collect())
}

/// A new cpuset is empty and takes no process (v1); a v2 cgroup's children get only the controllers it hands down.
fn inherit(parent: &Path, child: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = fs::read_to_string(child.join(file)).unwrap_or_default();
        if let Ok(value) = fs::read_to_string(parent.join(file))
            && own.trim().is_empty()
        {
            let _ = fs::write(child.join(file), value.trim());
        }
    }
    for controller in ["cpu", "cpuset", "memory", "pids", "io"] {
        let _ = fs::write(
            parent.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
}

fn pids_below(dir: &Path) -> Vec<i32> {
    let mut pids: Vec<i32> = fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|l| l.parse().ok())
        .filter(|pid| *pid > 0)
        .collect();
    pids.extend(children(dir).iter().flat_map(|d| pids_below(d)));
    pids
}

fn remove_tree(dir: &Path) {
    children(dir).iter().for_each(|d| remove_tree(d));
    let _ = fs::remove_dir(dir);
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .filter_map(|e| e.ok())
        .map(|e| e.path())
        .filter(|p| p.is_dir())
        .collect()
}
