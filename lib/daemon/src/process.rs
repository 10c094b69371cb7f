//! The metrics that every Prometheus client exports about its own process, and which build it is.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Registers `process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds`, `process_threads` and
/// `outboard_build_info` with the labels `program` and `version`.
pub fn register(registry: &mut Registry, program: &'static str) {
    registry.register(
        "outboard_build",
        "Which build of which program this is",
        Info::new([("program", program), ("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry.register_collector(Box::new(Process));
}

#[derive(Debug)]
struct Process;

/// What /proc/self says; `None` where it can't be read.
struct Usage {
    resident_bytes: i64,
    cpu_seconds: f64,
    threads: i64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        if let Some(usage) = Usage::read() {
            let memory = ConstGauge::new(usage.resident_bytes);
            let name = "process_resident_memory_bytes";
            memory.encode(encoder.encode_descriptor(
                name,
                "Resident memory",
                None,
                memory.metric_type(),
            )?)?;
            let cpu = ConstCounter::new(usage.cpu_seconds);
            cpu.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system time",
                None,
                cpu.metric_type(),
            )?)?;
            let threads = ConstGauge::new(usage.threads);
            threads.encode(encoder.encode_descriptor(
                "process_threads",
                "Threads",
                None,
                threads.metric_type(),
            )?)?;
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let open = ConstGauge::new(i64::try_from(open.count()).unwrap_or(i64::MAX));
            open.encode(encoder.encode_descriptor(
                "process_open_fds",
                "Open file descriptors",
                None,
                open.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

impl Usage {
    fn read() -> Option<Self> {
        use nix::unistd::{SysconfVar, sysconf};
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The command, in parentheses, may itself contain blanks and parentheses.
        let (_, fields) = stat.rsplit_once(')')?;
        let field = |number: usize| -> Option<i64> {
            // proc(5) counts from 1; the first field behind the command is number 3.
            fields.split_whitespace().nth(number - 3)?.parse().ok()
        };
        let page = sysconf(SysconfVar::PAGE_SIZE).ok()??;
        let ticks = sysconf(SysconfVar::CLK_TCK).ok()??;
        Some(Self {
            resident_bytes: field(24)? * page,
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks as f64,
            threads: field(20)?,
        })
    }
}
