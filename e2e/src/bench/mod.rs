//! `outboard-lab bench`: what Outboard costs, beside what it stands on and beside the reference plugins, measured in one run.
//!
//! Each section runs by itself and makes its own ground. A number is compared only with numbers of the same run: this
//! kind of machine is noisy, and one day's milliseconds say nothing about another day's.

mod add;
mod addresses;
mod burst;
mod cluster;
mod dpu;
mod etcd;
mod exec;
pub mod flood;
mod floor;
mod memory;
mod pods;
mod ports;
mod procfs;
mod relay;
mod report;
mod samples;
mod sessions;
mod shim;
mod stages;
mod start;
pub mod stopwatch;
mod storage;
mod vm;

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use tokio::runtime::Runtime;

use report::Report;

/// What is to be measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Only these sections, comma separated.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Section>,
    /// add, dpu: how many ADDs and DELs of each kind; dpu: how many handshakes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    samples: u16,
    /// add, dpu: with how many ports on the node; the last number is the one of section memory.
    #[arg(long, value_delimiter = ',', default_value = "10,250")]
    ports: Vec<u16>,
    /// burst, dpu-burst: how many runs of each kind.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
    /// burst, dpu-burst: how many pods at once.
    #[arg(long, default_value_t = 110, value_parser = clap::value_parser!(u16).range(1..=250))]
    pods: u16,
    /// start: with how many ports in the northbound database.
    #[arg(long, value_delimiter = ',', default_value = "2000,100000")]
    start_ports: Vec<u32>,
    /// sessions: how many.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(2..=3000))]
    sessions: u16,
    /// addresses: how many pods.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    bound: u32,
    /// dpu: how often the channel is cut.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    cuts: u16,
    /// volumes: how many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(2..=500))]
    volumes: u16,
    /// attach: how many of each kind, one after the other.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    attaches: u16,
    /// attach: how many at once.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=100))]
    at_once: u16,
    /// clone: sizes of volumes, in GiB; they are written full.
    #[arg(long, value_delimiter = ',', default_value = "1,10")]
    clone_gib: Vec<u16>,
    /// datapath, vm-disk: how many rounds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    fio_rounds: u16,
    /// datapath, vm-disk: seconds of each load.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=60))]
    fio_seconds: u16,
    /// vm: how many machines of each kind.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    vm_rounds: u16,
    /// vm: seconds of each load.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=30))]
    vm_seconds: u16,
    /// shim: how many calls of each kind.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(10..=20_000))]
    shim_calls: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Start-up time and size of the plugin.
    Exec,
    /// ADD and DEL, beside OVN's own time and beside bridge + host-local.
    Add,
    /// Many pods at once on one node.
    Burst,
    /// Start of cni-controller with many ports in the northbound database.
    Start,
    /// Addresses for many pods.
    Addresses,
    /// Memory of the daemons.
    Memory,
    /// A thousand nodes at the southbound database.
    Sessions,
    /// A host behind its DPU: ADD, the channel after a cut, and a handshake by annotations for comparison.
    Dpu,
    /// Many pods at once on a host, beside a plain node.
    DpuBurst,
    /// Storage: CreateVolume and DeleteVolume, beside qemu-img.
    Volumes,
    /// Storage: a volume brought to a workload, alone and many at once, beside the same by hand.
    Attach,
    /// Storage: clones and snapshots of volumes with data.
    Clone,
    /// Storage: 4 KiB at random, beside the same chain by hand and a loop device.
    Datapath,
    /// VMs: packets per second and round trips between a VM and a pod, by vhost-user and by veth, bridge and tap.
    Vm,
    /// VMs: 4 KiB at random in a guest, by vhost-user-blk and by virtio-blk over the same image's block device.
    VmDisk,
    /// VMs: OnDefineDomain of vhostuser-shim, beside its Info.
    Shim,
}

/// What every section gets.
struct Bench {
    options: Options,
    runtime: Runtime,
    serial: AtomicU64,
}

/// Runs the sections. Success means that all could be measured, not that all aims are met.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let bench = Bench {
        runtime: Runtime::new().context("the asynchronous runtime")?,
        options: options.clone(),
        serial: AtomicU64::new(0),
    };
    let all = Section::value_variants();
    let wanted = all
        .iter()
        .filter(|s| options.only.is_empty() || options.only.contains(s));
    if report::is_development_build() {
        println!("a development build: the numbers show that the bench works and nothing else");
    }
    let mut failed = Vec::new();
    for section in wanted {
        let begun = Instant::now();
        let name = section.name();
        eprintln!("[bench] {name}");
        match section.measure(&bench) {
            Ok(report) => report.finish(name, begun.elapsed())?,
            Err(error) => {
                println!("\n{name}: not measured: {error:#}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nnot measured: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}

impl Section {
    fn name(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Add => "add",
            Self::Burst => "burst",
            Self::Start => "start",
            Self::Addresses => "addresses",
            Self::Memory => "memory",
            Self::Sessions => "sessions",
            Self::Dpu => "dpu",
            Self::DpuBurst => "dpu-burst",
            Self::Volumes => "volumes",
            Self::Attach => "attach",
            Self::Clone => "clone",
            Self::Datapath => "datapath",
            Self::Vm => "vm",
            Self::VmDisk => "vm-disk",
            Self::Shim => "shim",
        }
    }

    fn measure(self, bench: &Bench) -> Result<Report> {
        match self {
            Self::Exec => exec::measure(),
            Self::Add => add::measure(bench),
            Self::Burst => burst::measure(bench),
            Self::Start => start::measure(bench),
            Self::Addresses => addresses::measure(bench),
            Self::Memory => memory::measure(bench),
            Self::Sessions => sessions::measure(bench),
            Self::Dpu => dpu::measure(bench),
            Self::DpuBurst => dpu::measure_burst(bench),
            Self::Volumes => storage::volumes::measure(bench),
            Self::Attach => storage::attach::measure(bench),
            Self::Clone => storage::clone::measure(bench),
            Self::Datapath => storage::datapath::measure(bench),
            Self::Vm => vm::measure(bench),
            Self::VmDisk => storage::guest::measure(bench),
            Self::Shim => shim::measure(bench),
        }
    }
}

impl Bench {
    /// A number that is given once.
    fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Says on standard error what is done.
    fn say(what: &str) {
        eprintln!("[bench]   {what}");
    }
}
