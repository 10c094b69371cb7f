//! The stages of one ADD, from the line that cni-node logs about it, as bars.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::pods;

const NAMESPACE: &str = "outboard-system";
/// Characters of the longest bar.
const WIDTH: f64 = 30.0;

/// The pod whose ADD is shown: started when nothing else starts.
const POD: &str = "alone";

/// Starts a pod by itself; one line: its ADD, the time, and a bar for each stage.
pub(super) fn of_one_add(lab: &Lab, namespace: &str) -> Result<String> {
    lab.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {POD}, namespace: {namespace}}}\n\
         spec:\n  terminationGracePeriodSeconds: 0\n  containers:\n\
         \x20 - {{name: shell, image: {}, imagePullPolicy: Never, command: [sleep, infinity]}}\n",
        lab.image()
    ))?;
    lab.wait_ready(namespace, POD, Duration::from_secs(60))?;
    let node = pods::one(lab, namespace, POD)?.node;
    let daemons = pods::all(lab)?;
    let daemon = daemons
        .iter()
        .find(|pod| {
            pod.namespace == NAMESPACE && pod.name.starts_with("cni-node-") && pod.node == node
        })
        .with_context(|| format!("no pod of cni-node is on node {node}"))?;
    let log = lab.kubectl(&["logs", "-n", NAMESPACE, &daemon.name, "-c", "cni-node"])?;
    let wanted = [
        format!("pod=\"{namespace}/{POD}\""),
        "op=\"ADD\"".into(),
        "done in ".into(),
    ];
    let line = log
        .lines()
        .find(|line| wanted.iter().all(|part| line.contains(part.as_str())))
        .with_context(|| {
            format!("cni-node on {node} logged no finished ADD of {namespace}/{POD}:\n{log}")
        })?;
    let total = between(line, "done in ", " ms").context("the line has no time")?;
    Ok(format!(
        "one ADD, {total} ms (stages may overlap):  {}",
        bars(&stages(line)?)
    ))
}

/// The pairs `<stage>=<time>ms` behind `stages=`.
fn stages(line: &str) -> Result<Vec<(&str, f64)>> {
    let (_, tail) = line
        .split_once("stages=")
        .with_context(|| format!("no stages in: {line}"))?;
    let pairs = tail.split_whitespace().map_while(|word| {
        let (stage, time) = word.trim_matches('"').split_once('=')?;
        Some((stage, time.strip_suffix("ms")?.parse().ok()?))
    });
    let pairs: Vec<_> = pairs.collect();
    anyhow::ensure!(!pairs.is_empty(), "no stages in: {line}");
    Ok(pairs)
}

fn bars(stages: &[(&str, f64)]) -> String {
    let longest = stages
        .iter()
        .map(|(_, ms)| *ms)
        .fold(f64::EPSILON, f64::max);
    let bar = |(stage, ms): &(&str, f64)| {
        // From 0 to WIDTH.
        let length = (ms / longest * WIDTH).round() as usize;
        format!(
            "{stage} {}{ms:.1}",
            if length == 0 {
                String::new()
            } else {
                "█".repeat(length) + " "
            }
        )
    };
    stages.iter().map(bar).collect::<Vec<_>>().join(" │ ")
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.split_once(before)?
        .1
        .split_once(after)
        .map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_becomes_bars() {
        let line = r#"INFO done in 24.1 ms op="ADD" pod="demo/client" network="outboard" stages=wait_row=0.0ms netns=5.0ms ovs=2.5ms ovn_installed=20.0ms other=1"#;
        let stages = stages(line).unwrap();
        assert_eq!(
            stages,
            [
                ("wait_row", 0.0),
                ("netns", 5.0),
                ("ovs", 2.5),
                ("ovn_installed", 20.0)
            ]
        );
        let bars = bars(&stages);
        assert!(
            bars.starts_with("wait_row 0.0 │ netns ████████ 5.0 │"),
            "{bars}"
        );
        assert_eq!(between(line, "done in ", " ms"), Some("24.1"));
    }
}
