//! The stages of one attach, from the lines that csi-controller and csi-node-host log about it, as bars.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::bars::{self, milliseconds};
use crate::lab::Lab;
use crate::op_line::OpLine;
use crate::pods;
use crate::volumes::{Claim, Mode, User, Volumes};

const SYSTEM: &str = "outboard-system";
/// The claim and the pod whose attach is shown: when nothing else is attached.
const NAME: &str = "alone-disk";
/// Who does what, in order, and how the line calls it.
const CALLS: [(&str, &str, &str); 3] = [
    ("csi-controller", "ControllerPublishVolume", "publish"),
    ("csi-node-host", "NodeStageVolume", "stage"),
    ("csi-node-host", "NodePublishVolume", "bind"),
];

/// Starts a pod with a new volume by itself, and takes both away again; one line: the time of the three calls, and a bar for
/// each stage.
pub(super) fn of_one(lab: &Lab, namespace: &str) -> Result<String> {
    let volumes = Volumes::new(lab, namespace);
    let line = line(lab, &volumes);
    let gone = volumes.delete(&[&format!("pod/{NAME}"), &format!("pvc/{NAME}")]);
    line.and_then(|line| gone.map(|()| line))
}

fn line(lab: &Lab, volumes: &Volumes<'_>) -> Result<String> {
    volumes.claim(&Claim::new(NAME, "64Mi", Mode::Filesystem))?;
    volumes.start(&User::new(NAME, NAME, Mode::Filesystem).on("n2"))?;
    let volume = volumes.bound(NAME)?.handle;
    let mut whole = Duration::ZERO;
    let mut stages = Vec::new();
    for (program, call, short) in CALLS {
        let log = log(lab, program, "n2")?;
        let wanted = [call, volume.as_str(), "done in "];
        let line = log
            .lines()
            .find(|line| wanted.iter().all(|part| line.contains(part)))
            .with_context(|| format!("{program} logged no finished {call} of {volume}"))?;
        let done = OpLine::parse(line).with_context(|| format!("no time in: {line}"))?;
        whole += done.whole;
        for (n, (stage, time)) in done.stages.into_iter().enumerate() {
            let name = if n == 0 {
                format!("{short}: {stage}")
            } else {
                stage.to_owned()
            };
            stages.push((name, time));
        }
    }
    ensure!(!stages.is_empty(), "no stages in the logs");
    Ok(format!(
        "one attach of a new volume, {:.1} ms in its three calls:  {}",
        milliseconds(whole),
        bars::line(&stages)
    ))
}

/// What a program has said; of a daemon the one on `node`.
fn log(lab: &Lab, program: &str, node: &str) -> Result<String> {
    let prefix = format!("{program}-");
    let ours = pods::all(lab)?
        .into_iter()
        .filter(|pod| pod.namespace == SYSTEM && pod.name.starts_with(&prefix));
    // There is one of csi-controller, wherever it is.
    let pod = ours
        .max_by_key(|pod| pod.node == node)
        .with_context(|| format!("there is no pod of {program}"))?;
    lab.kubectl(&["logs", "-n", SYSTEM, &pod.name, "-c", program])
}
