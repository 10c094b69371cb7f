//! Where the time of an ADD goes, from the lines that cni-node logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::samples::Samples;
use crate::op_line::OpLine;

/// Times by stage, and of the whole as `cni-node`, of the ADDs in a log's part from `offset` on.
pub(super) fn of_adds(log: &Path, offset: u64) -> Result<BTreeMap<String, Samples>> {
    of("ADD", log, offset)
}

/// The same of the attachments that a DPU made for its host.
pub(super) fn of_attaches(log: &Path, offset: u64) -> Result<BTreeMap<String, Samples>> {
    of("attach", log, offset)
}

fn of(op: &str, log: &Path, offset: u64) -> Result<BTreeMap<String, Samples>> {
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[start..]);
    let mut all: BTreeMap<String, Samples> = BTreeMap::new();
    let op = format!("op=\"{op}\"");
    let lines = text.lines().filter(|line| line.contains(&op));
    for line in lines.filter_map(OpLine::parse) {
        for (stage, time) in [("cni-node", line.whole)].into_iter().chain(line.stages) {
            all.entry(stage.to_owned()).or_default().push(time);
        }
    }
    Ok(all)
}
