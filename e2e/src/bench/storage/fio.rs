//! fio on a block device.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::shell;

/// A kind of load: 4 KiB at random.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// `randread` or `randwrite`.
    pub(super) kind: &'static str,
    /// Requests under way at a time.
    pub(super) depth: u16,
}

/// The loads that are measured.
pub(super) const LOADS: [Load; 4] = [
    Load::of("randread", 1),
    Load::of("randread", 32),
    Load::of("randwrite", 1),
    Load::of("randwrite", 32),
];

const ALWAYS: [&str; 4] = ["fio", "--name=bench", "--ioengine=libaio", "--direct=1"];

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    /// Requests per second.
    pub(super) iops: f64,
    /// Of a request, half of them; µs.
    pub(super) half: f64,
    /// Of a request, 99 % of them; µs.
    pub(super) most: f64,
}

impl Load {
    const fn of(kind: &'static str, depth: u16) -> Self {
        Self { kind, depth }
    }

    /// Puts it on the first `bytes` of a device.
    ///
    /// # Errors
    /// fio is not installed, or had an I/O error.
    pub(super) fn run(self, device: &Path, bytes: u64, time: Duration) -> Result<Figures> {
        let printed = fio(&self.options(device, bytes, time))?;
        figures(&printed)
    }

    /// The same as a line for a shell, such as a guest's, whose output [`figures`] reads.
    pub(super) fn line(self, device: &Path, bytes: u64, time: Duration) -> String {
        let options = self.options(device, bytes, time).join(" ");
        format!("{} {options}", ALWAYS.join(" "))
    }

    fn options(self, device: &Path, bytes: u64, time: Duration) -> Vec<String> {
        vec![
            format!("--filename={}", device.display()),
            format!("--rw={}", self.kind),
            format!("--iodepth={}", self.depth),
            format!("--size={bytes}"),
            format!("--runtime={}ms", time.as_millis()),
            "--bs=4k".into(),
            "--time_based".into(),
            "--ramp_time=300ms".into(),
            "--norandommap".into(),
            "--randrepeat=0".into(),
            "--output-format=json".into(),
        ]
    }
}

/// Writes the first `bytes` of a device, with nothing that could be left out.
pub(super) fn fill(device: &Path, bytes: u64) -> Result<()> {
    fio(&[
        format!("--filename={}", device.display()),
        format!("--size={bytes}"),
        "--rw=write".into(),
        "--bs=1M".into(),
        "--iodepth=8".into(),
        "--refill_buffers".into(),
        "--end_fsync=1".into(),
    ])
    .map(drop)
}

fn fio(options: &[String]) -> Result<String> {
    let argv = ALWAYS.iter().copied();
    let argv: Vec<&str> = argv.chain(options.iter().map(String::as_str)).collect();
    shell::run(&argv)
}

/// What fio printed as JSON.
pub(super) fn figures(printed: &str) -> Result<Figures> {
    read(printed).with_context(|| format!("fio printed {printed}"))
}

fn read(printed: &str) -> Option<Figures> {
    // Warnings come before.
    let text = &printed[printed.find('{')?..];
    let report: Value = serde_json::from_str(text).ok()?;
    let job = &report["jobs"][0];
    let side = ["read", "write"]
        .map(|name| &job[name])
        .into_iter()
        .find(|side| side["iops"].as_f64() > Some(0.0))?;
    let latency = |percent: &str| Some(side["clat_ns"]["percentile"][percent].as_f64()? / 1e3);
    Some(Figures {
        iops: side["iops"].as_f64()?,
        half: latency("50.000000")?,
        most: latency("99.000000")?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn figures_are_those_of_the_side_that_worked() {
        let text = r#"fio: a warning
            {"jobs": [{"read": {"iops": 0.0}, "write": {"iops": 1234.5,
             "clat_ns": {"percentile": {"50.000000": 51000, "99.000000": 99000}}}}]}"#;
        let figures = super::read(text).unwrap();
        assert_eq!(
            (figures.iops, figures.half, figures.most),
            (1234.5, 51.0, 99.0)
        );
        assert!(super::read("nothing").is_none());
    }
}
