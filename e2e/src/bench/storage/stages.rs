//! Where the time of an attach goes, from the lines that csi-controller and csi-node-host log.

use super::csi::Volume;
use crate::bench::samples::Samples;
use crate::op_line::OpLine;

/// The calls of an attach, in order.
const CALLS: [&str; 3] = [
    "ControllerPublishVolume",
    "NodeStageVolume",
    "NodePublishVolume",
];

/// Stages by `<call>, <stage>` in the order they come, of the `nth` attach (from 0) of each volume. None where a call's line
/// has no stages.
pub(super) fn of_attaches(logs: &str, volumes: &[Volume], nth: usize) -> Vec<(String, Samples)> {
    let mut all: Vec<(String, Samples)> = Vec::new();
    for call in CALLS {
        let done = |line: &&str| line.contains(call) && line.contains("done in ");
        let lines: Vec<&str> = logs.lines().filter(done).collect();
        for volume in volumes {
            let mut of_volume = lines.iter().filter(|line| line.contains(&volume.id));
            let line = of_volume.nth(nth).and_then(|line| OpLine::parse(line));
            for (stage, time) in line.into_iter().flat_map(|line| line.stages) {
                let name = format!("{call}, {stage}");
                match all.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, samples)) => samples.push(time),
                    None => all.push((name, [time].into_iter().collect())),
                }
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_those_of_the_attach_that_is_asked_for() {
        let line = |volume: &str, ms: &str| {
            format!(
                "INFO csi{{op=\"NodeStageVolume\" volume=\"{volume}\"}}: done in 9.0 ms stages=find=0.5ms mount={ms}ms\n"
            )
        };
        let logs =
            line("v1.local.a", "1.0") + &line("v1.local.b", "3.0") + &line("v1.local.a", "2.0");
        let volumes = ["v1.local.a", "v1.local.b"].map(Volume::named);
        let names = |nth| {
            of_attaches(&logs, &volumes, nth)
                .into_iter()
                .map(|(name, samples)| (name, samples.values().to_vec()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            names(0),
            [
                ("NodeStageVolume, find".to_owned(), vec![0.5, 0.5]),
                ("NodeStageVolume, mount".to_owned(), vec![1.0, 3.0])
            ]
        );
        assert_eq!(names(1)[1].1, [2.0]);
    }
}
