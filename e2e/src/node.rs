//! A node: a network, a mount and a UTS namespace, held by one process, and the programs that run in them.
//!
//! Not by `ip netns exec`: that remounts /sys and hides the cgroup mounts from kubelet and containerd.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::cgroup::Cgroup;
use crate::process::Process;
use crate::topology::{Place, Role};
use crate::{fabric, shell, wait};

const INIT: &str = include_str!("node-init.sh");
const HOLDER: &str = "init";
/// What the node's programs take for the kernel's boot id: all nodes of a machine share the real one.
const BOOT_ID: &str = "/run/outboard/boot-id";

/// One node of a lab.
#[derive(Debug)]
pub struct Node {
    name: String,
    lab: u8,
    index: u8,
    role: Role,
    dpdk: bool,
    dir: PathBuf,
    cgroup: Cgroup,
    holder: i32,
}

impl Node {
    /// Makes the node's namespaces in the network namespace that the fabric has made.
    pub(crate) fn create(lab: u8, place: &Place, lab_dir: &Path) -> Result<Self> {
        let name = place.name.as_str();
        let dir = lab_dir.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let cgroup = Cgroup::create(lab, name)?;
        let netns = format!("--net=/run/netns/{}", fabric::netns(lab, name));
        let here = dir.display().to_string();
        let argv = [
            "nsenter", &netns, "unshare", "-m", "-u", "sh", "-c", INIT, HOLDER, name, &here,
        ];
        let process = Process::start(&dir, HOLDER, argv.map(str::to_string).to_vec(), &cgroup)?;
        wait::until_true(
            &format!("the namespaces of node {name}"),
            Duration::from_secs(20),
            || {
                let log = dir.join(format!("{HOLDER}.log"));
                anyhow::ensure!(
                    process.alive(),
                    "init ended: {}",
                    fs::read_to_string(log).unwrap_or_default()
                );
                Ok(dir.join("ready").exists())
            },
        )?;
        let node = Self {
            name: name.into(),
            lab,
            index: place.index,
            role: place.role.clone(),
            dpdk: place.dpdk,
            holder: process.pid()?,
            dir,
            cgroup,
        };
        node.new_boot_id()?;
        Ok(node)
    }

    /// A node that another process made.
    pub(crate) fn attach(lab: u8, place: &Place, lab_dir: &Path) -> Result<Self> {
        let name = place.name.as_str();
        let dir = lab_dir.join(name);
        let holder = Process::at(&dir, HOLDER).pid()?;
        Ok(Self {
            name: name.into(),
            lab,
            index: place.index,
            role: place.role.clone(),
            dpdk: place.dpdk,
            holder,
            dir,
            cgroup: Cgroup::existing(lab, name),
        })
    }

    /// The node's name, in Kubernetes and as its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the node is.
    pub fn role(&self) -> &Role {
        &self.role
    }

    /// Whether its Open vSwitch is the build with DPDK.
    pub fn has_dpdk(&self) -> bool {
        self.dpdk
    }

    /// The network namespace's name, as `ip netns` knows it on the machine.
    pub fn netns(&self) -> String {
        fabric::netns(self.lab, &self.name)
    }

    /// Underlay addresses, IPv4 and IPv6, without prefix.
    pub fn addresses(&self) -> (String, String) {
        fabric::node_addresses(self.lab, self.index)
    }

    pub(crate) fn mac(&self) -> String {
        fabric::node_mac(self.lab, self.index)
    }

    /// The process that holds the node's namespaces.
    pub(crate) fn holder(&self) -> i32 {
        self.holder
    }

    /// As after a boot of the machine: the node's programs see another boot id.
    pub(crate) fn new_boot_id(&self) -> Result<()> {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid").context("no random UUID")?;
        self.write(BOOT_ID, &id)
    }

    pub(crate) fn lab(&self) -> u8 {
        self.lab
    }

    /// The last part of its addresses.
    pub(crate) fn index(&self) -> u8 {
        self.index
    }

    pub(crate) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The node's directory in the lab's state: logs, process records.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path of the node (`/run/…`) as this machine reaches it: through the holder's root. Unix sockets too.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.holder))
    }

    /// A command that will run in the node's namespaces.
    pub fn command(&self, program: &str) -> Command {
        let prefix = self.entrance();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        command
    }

    /// Runs a command in the node to its end and returns what it printed.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn exec<S: AsRef<str>>(&self, argv: &[S]) -> Result<String> {
        let (program, arguments) = argv
            .split_first()
            .context("an empty command line was to be run")?;
        let mut command = self.command(program.as_ref());
        shell::finish(command.args(arguments.iter().map(S::as_ref)), None)
            .with_context(|| format!("on node {}", self.name))
    }

    /// Runs a shell script (`sh -ec`) in the node.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub fn script(&self, text: &str) -> Result<String> {
        self.exec(&["sh", "-ec", text])
    }

    /// Writes a file of the node, with its directories.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn write(&self, inside: &str, contents: &str) -> Result<()> {
        let path = self.path(inside);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot make {}", parent.display()))?;
        }
        fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Starts a long-running program in the node.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start<S: AsRef<str>>(&self, name: &str, argv: &[S]) -> Result<Process> {
        let words = self
            .entrance()
            .into_iter()
            .chain(argv.iter().map(|w| w.as_ref().to_string()));
        Process::start(&self.dir, name, words.collect(), &self.cgroup)
    }

    /// A program that was started on this node, by its name (`ovs-vswitchd`, `kubelet`, …).
    pub fn process(&self, name: &str) -> Process {
        Process::at(&self.dir, name)
    }

    /// Names of all programs that were started on this node.
    ///
    /// # Errors
    /// The node's directory cannot be read.
    pub fn process_names(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.dir)
            .with_context(|| format!("cannot read {}", self.dir.display()))?;
        let files = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = files
            .filter_map(|f| f.strip_suffix(".json").map(str::to_string))
            .collect();
        names.sort();
        Ok(names)
    }

    fn entrance(&self) -> Vec<String> {
        let holder = self.holder.to_string();
        ["nsenter", "-t", &holder, "-m", "-u", "-n", "--wd=/", "--"]
            .map(str::to_string)
            .to_vec()
    }
}
