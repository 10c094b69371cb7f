//! Where a volume must be reachable from, and where a backend's volumes are.

use std::collections::BTreeMap;

use proto::csi::v1::{Topology, TopologyRequirement};

use super::map;
use crate::status::Answer;

/// Segments of a place: all of them hold.
pub(crate) type Segments = BTreeMap<String, String>;

/// The form of a requirement.
pub(crate) fn check(requirement: Option<&TopologyRequirement>) -> Answer<()> {
    let Some(requirement) = requirement else {
        return Ok(());
    };
    for (field, topologies) in [
        ("requisite", &requirement.requisite),
        ("preferred", &requirement.preferred),
    ] {
        for (n, topology) in topologies.iter().enumerate() {
            map(
                &format!("accessibility_requirements.{field}[{n}].segments"),
                &topology.segments,
            )?;
        }
    }
    Ok(())
}

/// Whether volumes that are reachable from `segments` (empty: from everywhere) are reachable from `place`.
pub(crate) fn reaches(segments: &Segments, place: &Topology) -> bool {
    segments
        .iter()
        .all(|(key, value)| place.segments.get(key) == Some(value))
}

/// Whether such volumes satisfy a requirement: reachable from one of its requisite places at least.
pub(crate) fn satisfies(segments: &Segments, requirement: Option<&TopologyRequirement>) -> bool {
    let requisite = requirement
        .map(|requirement| requirement.requisite.as_slice())
        .unwrap_or_default();
    requisite.is_empty() || requisite.iter().any(|place| reaches(segments, place))
}

/// As CSI has it.
pub(crate) fn accessible(segments: &Segments) -> Vec<Topology> {
    if segments.is_empty() {
        Vec::new()
    } else {
        vec![Topology {
            segments: segments.clone(),
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(segments: &[(&str, &str)]) -> Topology {
        let segments = segments
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        Topology { segments }
    }

    #[test]
    fn one_requisite_place_is_enough() {
        let here = place(&[("node", "a")]).segments;
        let of = |requisite: &[Topology]| TopologyRequirement {
            requisite: requisite.into(),
            preferred: vec![],
        };
        let (a, b) = (
            place(&[("node", "a"), ("zone", "1")]),
            place(&[("node", "b")]),
        );
        assert!(satisfies(&here, Some(&of(&[b.clone(), a.clone()]))));
        assert!(!satisfies(&here, Some(&of(&[b.clone(), place(&[])]))));
        assert!(satisfies(&here, None));
        assert!(satisfies(&here, Some(&of(&[]))));
        assert!(satisfies(&Segments::new(), Some(&of(&[b]))));
        assert_eq!(accessible(&here), [place(&[("node", "a")])]);
        assert!(accessible(&Segments::new()).is_empty());
    }
}
