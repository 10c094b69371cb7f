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
        let printed = fio(&[
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
        ])?;
        figures(&printed).with_context(|| format!("fio printed {printed}"))
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
    let always = ["fio", "--name=bench", "--ioengine=libaio", "--direct=1"];
    let argv = always.iter().copied();
    let argv: Vec<&str> = argv.chain(options.iter().map(String::as_str)).collect();
    shell::run(&argv)
}

fn figures(printed: &str) -> Option<Figures> {
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
        let figures = super::figures(text).unwrap();
        assert_eq!(
            (figures.iops, figures.half, figures.most),
            (1234.5, 51.0, 99.0)
        );
        assert!(super::figures("nothing").is_none());
    }
}
