//! The program `outboard-lab`: up, down, status, exec, reboot-dpu, reboot-host, demo, bench.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};

use crate::lab::{Lab, LabConfig, Network};
use crate::site::{Site, SiteConfig};
use crate::topology::{Role, Topology};
use crate::{bench, demo, images, state, sweep};

/// A lab on this machine: Kubernetes on OVN, nodes in network namespaces. Needs root, and `make setup` once.
#[derive(Debug, Parser)]
#[command(name = "outboard-lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// The names of topologies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Nodes n1, n2, …
    Plain,
    /// A master m, hosts h1, h2, … and their DPUs d1, d2, …
    Dpu,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring up a lab, leave it running, write target/lab/env.
    Up {
        /// What the nodes are: all plain, or a master and hosts whose network is on their DPUs.
        #[arg(long, value_enum, default_value = "plain")]
        topology: Shape,
        /// How many nodes, if all are plain; the first one is also the master.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
        /// The lab's number, part of all its addresses (198.18.<id>.0/24); a free one when not given.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=250))]
        id: Option<u8>,
        /// How many hosts with a DPU each, in topology dpu.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=4))]
        pairs: u8,
        /// A node whose Open vSwitch is the build with DPDK, for VMs with vhost-user ports; several times for several nodes.
        #[arg(long, value_name = "NODE")]
        dpdk: Vec<String>,
        /// Without Outboard: pods get the reference bridge network.
        #[arg(long, conflicts_with = "topology")]
        no_outboard: bool,
        /// Without Outboard's storage: up sooner. Topology dpu has none.
        #[arg(long)]
        no_storage: bool,
    },
    /// Bring up a lab with Outboard, print a table of what works on it, take it down again.
    Demo {
        /// The lab's number; a free one when not given.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=250))]
        id: Option<u8>,
    },
    /// Measure, print tables, write JSON into target/bench/. The numbers of a release build count.
    Bench(bench::Options),
    /// Take a lab down: the one of this checkout, or --id, or --all of this machine.
    Down {
        #[arg(long)]
        id: Option<u8>,
        #[arg(long, conflicts_with = "id")]
        all: bool,
    },
    /// List labs, their nodes and processes.
    Status,
    /// A DPU goes off and on again: processes, links and Open vSwitch's database are lost; its host's pods go on.
    RebootDpu {
        #[arg(long)]
        id: Option<u8>,
        /// The DPU's node, such as d1.
        name: String,
    },
    /// A host goes off and on again.
    RebootHost {
        #[arg(long)]
        id: Option<u8>,
        /// The host's node, such as h1.
        name: String,
    },
    /// Run a command in a node: exec n1 -- ovs-vsctl show
    Exec {
        #[arg(long)]
        id: Option<u8>,
        node: String,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

/// Runs the program with the process's arguments.
pub fn run() -> ExitCode {
    match Cli::parse().verb.act() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("outboard-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Verb {
    fn act(self) -> Result<ExitCode> {
        match self {
            Self::Up {
                topology,
                nodes,
                pairs,
                id,
                dpdk,
                no_outboard,
                no_storage,
            } => {
                let network = if no_outboard {
                    Network::Bridge
                } else {
                    Network::Outboard
                };
                up(&LabConfig {
                    site: SiteConfig {
                        id,
                        nodes,
                        topology: match topology {
                            Shape::Plain => Topology::Plain,
                            Shape::Dpu => Topology::Dpu { pairs },
                        },
                        dpdk,
                    },
                    network,
                    storage: topology == Shape::Plain && !no_storage && !no_outboard,
                    ..LabConfig::default()
                })?;
            }
            Self::Demo { id } => {
                let good = demo::run(&LabConfig {
                    site: SiteConfig {
                        id,
                        ..SiteConfig::default()
                    },
                    storage: true,
                    ..LabConfig::default()
                })?;
                return Ok(if good {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
            Self::Bench(options) => return bench::run(&options),
            Self::Down { id, all } => down(id, all)?,
            Self::Status => status()?,
            Self::RebootDpu { id, name } => reboot(id, &name, "dpu")?,
            Self::RebootHost { id, name } => reboot(id, &name, "host")?,
            Self::Exec { id, node, command } => return exec(id, &node, &command),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn up(config: &LabConfig) -> Result<()> {
    if let Some(id) = current().filter(|id| state::dir(*id).exists()) {
        anyhow::bail!("this checkout's lab {id} is up already: `make lab-down` ends it");
    }
    let mut lab = Lab::up(config)?;
    let dir = env_dir();
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    fs::write(dir.join("env"), lab.environment()?)?;
    fs::write(dir.join("id"), lab.site.id().to_string())?;
    lab.keep()?;
    println!(
        "lab {} is up; to use it:  . {}",
        lab.site.id(),
        dir.join("env").display()
    );
    Ok(())
}

fn down(id: Option<u8>, all: bool) -> Result<()> {
    let ids = if all {
        state::labs()?
    } else {
        id.or_else(current).into_iter().collect()
    };
    if ids.is_empty() {
        println!("no lab is up");
    }
    for id in ids {
        sweep::remove(id)?;
        println!("lab {id} is down");
        if current() == Some(id) {
            fs::remove_dir_all(env_dir())?;
        }
    }
    Ok(())
}

fn status() -> Result<()> {
    for id in state::labs()? {
        let Ok(site) = Site::attach(id) else {
            println!("lab {id}: unfinished (`outboard-lab down --id {id}` removes it)");
            continue;
        };
        println!("lab {id} ({})", site.dir().display());
        for node in site.nodes() {
            let (v4, v6) = node.addresses();
            let role = match node.role() {
                Role::Plain => String::new(),
                Role::Host { dpu } => format!(" host of {dpu}"),
                Role::Dpu { host } => format!(" dpu of {host}"),
            };
            println!("  {}{role} {v4} {v6} netns {}", node.name(), node.netns());
            for name in node.process_names()? {
                let process = node.process(&name);
                let word = if process.alive() { "up" } else { "DOWN" };
                println!("    {word:<4} {name} (pid {})", process.pid()?);
            }
        }
    }
    Ok(())
}

fn exec(id: Option<u8>, node: &str, command: &[String]) -> Result<ExitCode> {
    let site = attach(id)?;
    let node = site.find(node)?;
    let status = node
        .command(&command[0])
        .args(&command[1..])
        .status()
        .context("cannot run nsenter")?;
    Ok(status
        .code()
        .and_then(|c| u8::try_from(c).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

fn reboot(id: Option<u8>, name: &str, wanted: &str) -> Result<()> {
    let site = attach(id)?;
    let role = site.find(name)?.role();
    anyhow::ensure!(
        role.word() == wanted,
        "node {name} is no {wanted}: `outboard-lab status` says what nodes are"
    );
    let (network, kubelet) = site.reboot(name)?.took();
    let what = if role.has_switch() {
        "Open vSwitch answers"
    } else {
        "the uplink is up"
    };
    println!(
        "{name} went off; {what} after {:.1} s, kubelet runs after {:.1} s",
        network.as_secs_f32(),
        kubelet.as_secs_f32()
    );
    Ok(())
}

fn attach(id: Option<u8>) -> Result<Site> {
    let id = id
        .or_else(current)
        .context("no lab is up from this checkout: name one with --id")?;
    Site::attach(id)
}

/// The lab that `up` brought up from this checkout.
fn current() -> Option<u8> {
    fs::read_to_string(env_dir().join("id"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn env_dir() -> PathBuf {
    images::checkout().join("target/lab")
}
