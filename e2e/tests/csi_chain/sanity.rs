//! `csi-sanity` over the whole chain and real mounts, with csi-controller and csi-node-host at endpoints of their own.

use std::io::Write as _;

use e2e::storage::sanity::{Outcome, Suite};
use e2e::storage::{Chain, ChainConfig};

use crate::world::sweep;

fn run(block: bool) -> Outcome {
    let mut chain = Chain::start(ChainConfig::default()).unwrap();
    // For the spec of the attach limit.
    chain.limit(0, 3).unwrap();
    let mut suite = Suite::new(chain.kubelet(0), chain.node_socket(0));
    suite.controller = Some(chain.controller_socket());
    suite.block = block;
    let outcome = suite.run_in(|program| chain.command(0, program)).unwrap();
    report(block, &outcome).unwrap();
    assert!(outcome.failed.is_empty());
    sweep(&chain, &[&suite.secret]);
    outcome
}

/// Past the harness, which shows nothing of a test that passes.
fn report(block: bool, outcome: &Outcome) -> std::io::Result<()> {
    let mut to = std::io::stderr().lock();
    let what = if block { "block" } else { "mount" };
    writeln!(to, "\n{what}: {}", outcome.line())?;
    for spec in &outcome.skipped {
        writeln!(to, "  skipped: {}: {}", spec.name, spec.why)?;
    }
    for spec in &outcome.failed {
        writeln!(to, "  FAILED: {}: {}", spec.name, spec.why)?;
    }
    Ok(())
}

/// What the suite leaves out, in its words: two calls and a field that this driver does not announce (the health of volumes is asked
/// one by one, hosts know nothing of the storage behind their disks, snapshots are reachable from everywhere), and what it always does.
const SKIPPED: [&str; 4] = [
    "ControllerListVolumeHealth not supported",
    "NodeGetStorageHealth not supported",
    "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS not supported",
    "pending in the suite itself",
];

fn skipped(outcome: &Outcome) -> Vec<&str> {
    let mut all: Vec<_> = outcome
        .skipped
        .iter()
        .map(|spec| spec.why.as_str())
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn sanity_with_file_systems() {
    let outcome = run(false);
    assert_eq!(skipped(&outcome), SKIPPED);
    assert_eq!(outcome.passed, 99);
}

#[test]
fn sanity_with_raw_disks() {
    let outcome = run(true);
    assert_eq!(skipped(&outcome), SKIPPED);
    assert_eq!(outcome.passed, 99);
}
