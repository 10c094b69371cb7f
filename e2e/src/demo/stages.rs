//! The stages of one ADD, from the line that cni-node logs about it, as bars.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::op_line::OpLine;
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
    let add = OpLine::parse(line).with_context(|| format!("no time in: {line}"))?;
    anyhow::ensure!(!add.stages.is_empty(), "no stages in: {line}");
    Ok(format!(
        "one ADD, {:.1} ms (stages may overlap):  {}",
        milliseconds(add.whole),
        bars(&add.stages)
    ))
}

fn bars(stages: &[(&str, Duration)]) -> String {
    let longest = stages
        .iter()
        .map(|(_, time)| milliseconds(*time))
        .fold(f64::EPSILON, f64::max);
    let bar = |(stage, time): &(&str, Duration)| {
        let ms = milliseconds(*time);
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

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_becomes_bars() {
        let line = r#"INFO done in 24.1 ms op="ADD" pod="demo/client" network="outboard" stages=wait_row=0.0ms netns=5.0ms ovs=2.5ms ovn_installed=20.0ms other=1"#;
        let add = OpLine::parse(line).unwrap();
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        assert_eq!(
            add.stages,
            [
                ("wait_row", ms(0.0)),
                ("netns", ms(5.0)),
                ("ovs", ms(2.5)),
                ("ovn_installed", ms(20.0))
            ]
        );
        let bars = bars(&add.stages);
        assert!(
            bars.starts_with("wait_row 0.0 │ netns ████████ 5.0 │"),
            "{bars}"
        );
        assert_eq!(format!("{:.1}", milliseconds(add.whole)), "24.1");
    }
}
