//! The program `outboard-lab`: up, down, status, exec, demo, bench.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::lab::{Lab, LabConfig, Network};
use crate::site::{Site, SiteConfig};
use crate::{bench, demo, images, state, sweep};

/// A lab on this machine: Kubernetes on OVN, nodes in network namespaces. Needs root, and `make setup` once.
#[derive(Debug, Parser)]
#[command(name = "outboard-lab", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Bring up a lab, leave it running, write target/lab/env.
    Up {
        /// How many nodes; the first one is also the master.
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
        /// The lab's number, part of all its addresses (198.18.<id>.0/24); a free one when not given.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=250))]
        id: Option<u8>,
        /// Without Outboard: pods get the reference bridge network.
        #[arg(long)]
        no_outboard: bool,
        /// Without Outboard's storage: up sooner.
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
                nodes,
                id,
                no_outboard,
                no_storage,
            } => {
                let network = if no_outboard {
                    Network::Bridge
                } else {
                    Network::Outboard
                };
                up(&LabConfig {
                    site: SiteConfig { id, nodes },
                    network,
                    storage: !no_storage && !no_outboard,
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
            println!("  {} {v4} {v6} netns {}", node.name(), node.netns());
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
    let id = id
        .or_else(current)
        .context("no lab is up from this checkout: name one with --id")?;
    let site = Site::attach(id)?;
    let node = site
        .nodes()
        .iter()
        .find(|n| n.name() == node)
        .with_context(|| {
            format!("lab {id} has no node {node}: `outboard-lab status` lists them")
        })?;
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
