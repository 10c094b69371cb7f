//! Pods as kubelet and containerd handle them: sandboxes come and go, the pod stays.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use e2e::{CniCall, CniLab, CniOutcome, CniSandbox, Node, PodRow, PodSpec, until};

pub(crate) const CONFIG: &str =
    r#"{"cniVersion":"1.1.0","name":"pods","type":"outboard","timeoutSeconds":30}"#;

/// A sandbox with a name of its own.
pub(crate) fn sandbox(node: &Node) -> CniSandbox<'_> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    CniSandbox::create(
        node,
        &format!("sandbox-{}", NEXT.fetch_add(1, Ordering::Relaxed)),
    )
    .unwrap()
}

/// A pod that was scheduled onto a node.
pub(crate) fn scheduled(lab: &CniLab, node: &Node, name: &str) -> PodRow {
    lab.network
        .schedule(&PodSpec::new(name, node.name()))
        .unwrap()
}

pub(crate) fn call(verb: &str, sandbox: &CniSandbox<'_>, row: &PodRow) -> CniOutcome {
    CniCall::new(verb, CONFIG)
        .of(sandbox, row)
        .run(sandbox.node())
        .unwrap()
}

#[track_caller]
pub(crate) fn add(sandbox: &CniSandbox<'_>, row: &PodRow) {
    call("ADD", sandbox, row).result().unwrap();
}

#[track_caller]
pub(crate) fn del(sandbox: &CniSandbox<'_>, row: &PodRow) {
    call("DEL", sandbox, row).result().unwrap();
}

#[track_caller]
pub(crate) fn reaches(sandbox: &CniSandbox<'_>, address: &str) {
    let what = format!("{} to reach {address}", sandbox.container);
    until(&what, Duration::from_secs(30), || {
        sandbox.ping(address).map(Some)
    })
    .unwrap();
}

/// Nothing is left on the node; at once.
#[track_caller]
pub(crate) fn swept(lab: &CniLab, node: &Node) {
    let remains = lab.remains(node).unwrap();
    assert!(remains.is_empty(), "left on {}: {remains:?}", node.name());
}
