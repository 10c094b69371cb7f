//! Where the time of an ADD goes, from the lines that cni-node logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::samples::Samples;

/// Times by stage, of the ADDs in a log's part from `offset` on.
pub(super) fn of_adds(log: &Path, offset: u64) -> Result<BTreeMap<String, Samples>> {
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    let text = String::from_utf8_lossy(&bytes[start..]);
    let mut all: BTreeMap<String, Samples> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains("op=\"ADD\"")) {
        for (stage, time) in stages(line) {
            all.entry(stage.to_owned()).or_default().push(time);
        }
    }
    Ok(all)
}

/// The pairs `<stage>=<time>ms` behind `stages=`, and the whole as `cni-node`.
fn stages(line: &str) -> Vec<(&str, Duration)> {
    let time = |text: &str| {
        text.parse()
            .ok()
            .map(|ms: f64| Duration::from_secs_f64(ms / 1e3))
    };
    let whole = line
        .split_once("done in ")
        .and_then(|(_, rest)| rest.split_once(" ms"));
    let whole = whole.and_then(|(ms, _)| Some(("cni-node", time(ms)?)));
    let tail = line.split_once("stages=").map_or("", |(_, tail)| tail);
    let pairs = tail.split_whitespace().map_while(|word| {
        let (stage, text) = word.trim_matches('"').split_once('=')?;
        Some((stage, time(text.strip_suffix("ms")?)?))
    });
    whole.into_iter().chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_a_line_are_read() {
        let line =
            r#"INFO done in 24.1 ms op="ADD" pod="a/b" stages=wait_row=0.0ms ovs=2.5ms other=1"#;
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let expected = [
            ("cni-node", ms(24.1)),
            ("wait_row", ms(0.0)),
            ("ovs", ms(2.5)),
        ];
        assert_eq!(stages(line), expected);
        assert!(stages("nothing").is_empty());
    }
}
