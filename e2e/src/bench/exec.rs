//! The plugin alone: how large it is, how long it takes to start and end.

use std::fs;

use anyhow::{Context as _, Result};

use super::report::{Report, Row};
use super::samples::Samples;
use super::stopwatch::{Job, Stopwatch};
use crate::images;

const ROUNDS: usize = 400;
const INPUT: &str = r#"{"cniVersion":"1.0.0","name":"bench","type":"bench"}"#;

/// VERSION of `outboard` and of the Go plugin `bridge`, alternating: neither does any work.
pub(super) fn measure() -> Result<Report> {
    let (ours, theirs) = (images::program("outboard")?, images::tool("bridge")?);
    let mut stopwatch = Stopwatch::here()?;
    let version = |program: &str| Job {
        argv: vec![program.to_owned()],
        env: vec![("CNI_COMMAND".into(), "VERSION".into())],
        input: INPUT.into(),
    };
    let nothing = Job {
        argv: ["busybox", "true"].map(str::to_owned).to_vec(),
        ..Job::default()
    };
    let jobs = [version(&ours), version(&theirs), nothing];
    let mut times = [(); 3].map(|()| Samples::default());
    for round in 0..ROUNDS {
        for (job, samples) in jobs.iter().zip(&mut times) {
            let (time, _) = stopwatch.time(job)?;
            // The first ones read the programs from the disk.
            if round >= 10 {
                samples.push(time);
            }
        }
    }
    let [ours_time, theirs_time, nothing_time] = times;
    let mut report = Report::new(format!(
        "The plugin's own start-up: VERSION, {} times each, alternating",
        ours_time.values().len()
    ));
    report.push(
        Row::new("outboard VERSION, p50", ours_time.p50(), "ms")
            .beside("bridge (Go)", theirs_time.p50())
            .at_most(theirs_time.p50() / 5.0, "1/5 of the Go plugin")
            .of(&ours_time),
    );
    report.push(
        Row::new("outboard VERSION, p99", ours_time.p99(), "ms")
            .beside("bridge (Go)", theirs_time.p99())
            .of(&theirs_time),
    );
    // What no program can go below; the rest is the plugin's own.
    let floor = nothing_time.p50();
    let beyond = |samples: &Samples| (samples.p50() - floor).max(0.0);
    let (own, others) = (beyond(&ours_time), beyond(&theirs_time));
    report.push(Row::new("fork and exec alone (busybox true), p50", floor, "ms").of(&nothing_time));
    report.push(
        Row::new("outboard beyond fork and exec", own, "ms")
            .beside("bridge (Go)", others)
            .at_most(others / 5.0, "1/5 of the Go plugin"),
    );
    let size = |path: &str| -> Result<f64> {
        let meta = fs::metadata(path).with_context(|| format!("cannot look at {path}"))?;
        Ok(meta.len() as f64 / 1e6)
    };
    report.push(
        Row::new("outboard, size", size(&ours)?, "MB")
            .beside("bridge (Go)", size(&theirs)?)
            .at_most(1.0, "1 MB"),
    );
    report.note("fork and exec alone are more than 1/5 of the Go plugin's time on a small machine");
    report.note(
        "static and without any work, glibc alone is 0.68 MB, with Rust's std (println) 1.08 MB",
    );
    Ok(report)
}
