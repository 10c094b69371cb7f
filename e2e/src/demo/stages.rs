//! The stages of one ADD, from the line that cni-node logs about it, as bars.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::bars::{self, milliseconds};
use crate::lab::Lab;
use crate::op_line::OpLine;
use crate::pods;

const NAMESPACE: &str = "outboard-system";
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
        bars::line(&add.stages)
    ))
}
