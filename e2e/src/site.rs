//! The ground of a lab: id, state, fabric, nodes. Its end is the lab's end.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::Cgroup;
use crate::node::Node;
use crate::process::Process;
use crate::topology::{Place, Topology, places};
use crate::{card, dpdk, fabric, shell, state, sweep};
use anyhow::{Context as _, Result};

/// What ground is wanted.
#[derive(Debug, Clone)]
pub struct SiteConfig {
    /// The lab's id; none takes a free one.
    pub id: Option<u8>,
    /// Of [`Topology::Plain`], how many nodes: `n1`, `n2`, … `n1` is the master.
    pub nodes: u8,
    /// Which nodes.
    pub topology: Topology,
    /// Names of the nodes whose Open vSwitch is the build with DPDK: VMs on them have vhost-user ports. Takes huge pages of the
    /// machine's memory while the lab is up.
    pub dpdk: Vec<String>,
}

impl Default for SiteConfig {
    fn default() -> Self {
        Self {
            id: None,
            nodes: 2,
            topology: Topology::Plain,
            dpdk: Vec::new(),
        }
    }
}

/// In the state directory: all nodes and what they are.
const PLACES: &str = "site.json";

/// A lab's ground. Dropping it takes the lab down, unless it is kept or `OUTBOARD_LAB_KEEP` is set.
#[derive(Debug)]
pub struct Site {
    id: u8,
    dir: PathBuf,
    nodes: Vec<Node>,
    owned: bool,
}

impl Site {
    /// Makes state directory, fabric and nodes.
    ///
    /// # Errors
    /// The id is taken, or the machine lacks something (the message names the command); nothing is left then.
    pub fn create(config: &SiteConfig) -> Result<Self> {
        let (id, dir) = state::claim(config.id)?;
        let mut site = Self {
            id,
            dir,
            nodes: Vec::new(),
            owned: true,
        };
        let places = places(config.topology, config.nodes, &config.dpdk)?;
        dpdk::reserve(&site.dir, config.dpdk.len())?;
        fs::write(site.dir.join(PLACES), serde_json::to_vec(&places)?)?;
        fabric::create(id, &places)?;
        site.start_outside()?;
        let dir = &site.dir;
        site.nodes = in_parallel(places.iter(), |place| Node::create(id, place, dir))?;
        site.nodes
            .iter()
            .try_for_each(|node| card::plug(node, &site.nodes))?;
        Ok(site)
    }

    /// The ground of a lab that is up already; dropping it changes nothing.
    ///
    /// # Errors
    /// There is no such lab.
    pub fn attach(id: u8) -> Result<Self> {
        let dir = state::dir(id);
        let text = fs::read(dir.join(PLACES)).with_context(|| format!("lab {id} is not up"))?;
        let places: Vec<Place> = serde_json::from_slice(&text)?;
        let nodes = places.iter().map(|place| Node::attach(id, place, &dir));
        Ok(Self {
            id,
            nodes: nodes.collect::<Result<_>>()?,
            dir,
            owned: false,
        })
    }

    /// The lab's number, part of all its addresses and names.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// The lab's state directory: logs, keys, records.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// All nodes, the master first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its name.
    ///
    /// # Panics
    /// The lab has no such node: a mistake in the test.
    pub fn node(&self, name: &str) -> &Node {
        self.nodes
            .iter()
            .find(|n| n.name() == name)
            .expect("a node that this lab was configured with")
    }

    /// The node that etcd, API server, NB, SB and northd run on.
    pub fn master(&self) -> &Node {
        &self.nodes[0]
    }

    /// Address of the outside host's web server, IPv4 and IPv6.
    pub fn outside(&self) -> (String, String) {
        (
            format!("198.19.{}.2", self.id),
            format!("fd00:199:{}::2", self.id),
        )
    }

    /// Runs a command in the outside host's network namespace.
    ///
    /// # Errors
    /// As [`crate::run`].
    pub fn outside_exec(&self, argv: &[&str]) -> Result<String> {
        let netns = fabric::netns(self.id, "outside");
        shell::run(&[&["ip", "netns", "exec", &netns], argv].concat())
    }

    /// Leaves the lab up when this value and this process end.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        state::keep(&self.dir)?;
        self.owned = false;
        Ok(())
    }

    fn start_outside(&self) -> Result<()> {
        let cgroup = Cgroup::create(self.id, "site")?;
        let www = self.dir.join("www");
        fs::create_dir_all(&www)?;
        fs::write(www.join("index.html"), "outside\n")?;
        let netns = format!("--net=/run/netns/{}", fabric::netns(self.id, "outside"));
        let argv = [
            "nsenter",
            &netns,
            "busybox",
            "httpd",
            "-f",
            "-p",
            "[::]:80",
            "-h",
            &www.display().to_string(),
        ];
        Process::start(
            &self.dir,
            "outside-httpd",
            argv.map(str::to_string).to_vec(),
            &cgroup,
        )?;
        Ok(())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !self.owned
            || std::env::var_os("OUTBOARD_LAB_KEEP").is_some_and(|_| state::keep(&self.dir).is_ok())
        {
            return;
        }
        if let Err(error) = sweep::remove(self.id) {
            eprintln!("lab {}: {error:#}", self.id);
        }
    }
}

/// Does something to several nodes at once and gives back all results, or the first error.
pub(crate) fn in_parallel<T: Send, I: Sync + Send>(
    items: impl Iterator<Item = I>,
    work: impl Fn(I) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.map(|item| scope.spawn(move || work(item))).collect();
        let joined = threads.into_iter().map(|t| {
            t.join()
                .map_err(|_| anyhow::anyhow!("a thread of the lab panicked"))
        });
        joined.map(|r| r.and_then(|inner| inner)).collect()
    })
}
