//! STATUS and /readyz: can an ADD be served, and if not, do the pods that run still have their network?

use cni_bin::code;

use crate::error::Error;
use crate::node::Node;
use crate::vhostuser::Kind;
use crate::vhostuser::asked::Fallback;
use crate::vhostuser::needs::without_dpdk;

/// One thing that is wrong, as a sentence without its full stop.
pub(crate) struct Complaint {
    pub(crate) what: String,
    /// Pods that run may have lost parts of their network.
    pub(crate) limits: bool,
}

/// Serves a STATUS (CNI specification, section "STATUS"): 50, or 51 when running pods are touched, too.
///
/// What vhost-user interfaces need is said to a network of that kind alone, unless its machines get taps: all others are served without it.
pub(crate) async fn status(node: &Node, kind: &Kind) -> Result<(), Error> {
    let mut complaints = complaints(node).await;
    if let Kind::VhostUser(asked) = kind {
        let mut missing = node.vhost.missing(node);
        if asked.fallback == Fallback::Tap && without_dpdk(&missing) {
            missing.clear();
        }
        complaints.extend(missing.into_iter().map(|lack| Complaint {
            what: lack.what,
            limits: false,
        }));
    }
    answer(complaints, !node.store.is_empty())
}

/// The answer to a STATUS. `attached`: there are pods that could lose something.
pub(crate) fn answer(complaints: Vec<Complaint>, attached: bool) -> Result<(), Error> {
    if complaints.is_empty() {
        return Ok(());
    }
    let limited = attached && complaints.iter().any(|complaint| complaint.limits);
    let code = if limited {
        code::NOT_AVAILABLE_LIMITED_CONNECTIVITY
    } else {
        code::NOT_AVAILABLE
    };
    let all: Vec<_> = complaints
        .into_iter()
        .map(|complaint| complaint.what)
        .collect();
    Err(Error::new(
        code,
        format!("No pod can be attached on this node: {}.", all.join("; ")),
        "See /readyz of cni-node on this node (port 9476 unless changed) and its log.",
    ))
}

/// The sentences alone, for /readyz.
pub(crate) async fn sentences(node: &Node) -> Vec<String> {
    complaints(node)
        .await
        .into_iter()
        .map(|complaint| complaint.what)
        .collect()
}

/// All that keeps an ADD from being served.
pub(crate) async fn complaints(node: &Node) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let mut add = |what: String, limits| complaints.push(Complaint { what, limits });
    if let Some(trouble) = node.southbound.trouble() {
        add(
            format!("the southbound database cannot be used ({trouble})"),
            false,
        );
    }
    match node.vswitch.trouble() {
        Some(trouble) => add(
            format!("the local Open vSwitch database cannot be used ({trouble})"),
            true,
        ),
        None => {
            if let Err(error) = node.vswitch.bridge(tokio::time::Instant::now()).await {
                add(error.cause.trim_end_matches('.').to_owned(), true);
            }
        }
    }
    if let Some(trouble) = node.ovn_controller.trouble().await {
        add(trouble, true);
    }
    if !*node.recovered.borrow() {
        add(
            "what was left before the start is not cleaned up yet".to_owned(),
            false,
        );
    }
    if node.mtu.borrow().is_none() {
        add(
            "the MTU of pods is not known (--encap-ip is on no link)".to_owned(),
            false,
        );
    }
    complaints
}
