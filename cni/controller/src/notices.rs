//! Events on the objects that cannot have what they ask for.

use crate::report::Notice;
use crate::rows::{Problem, Unit};
use api::names::{GROUP, VERSION};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Publishes notices until the token is cancelled. An Event that the API server does not take is
/// logged and lost: the problem is still there, and is reported again when it changes.
pub(crate) async fn run(
    client: Client,
    instance: String,
    mut notices: mpsc::Receiver<Notice>,
    stop: CancellationToken,
) {
    let reporter = Reporter {
        controller: "iaas.yusur.io/cni-controller".to_owned(),
        instance: Some(instance),
    };
    let recorder = Recorder::new(client, reporter);
    loop {
        let notice = tokio::select! {
            () = stop.cancelled() => return,
            notice = notices.recv() => notice,
        };
        let Some(Notice { unit, uid, problem }) = notice else {
            return;
        };
        if let Err(error) = recorder
            .publish(&event(&problem), &reference(&unit, uid))
            .await
        {
            let error = anyhow::Error::from(error);
            tracing::warn!(%unit, reason = problem.reason, "the Event was not taken: {error:#}");
        }
    }
}

fn event(problem: &Problem) -> Event {
    // An Event's note holds 1 kB.
    let note: String = problem.sentence.chars().take(1000).collect();
    Event {
        type_: EventType::Warning,
        reason: problem.reason.to_owned(),
        note: Some(note),
        action: "Allocate".to_owned(),
        secondary: None,
    }
}

fn reference(unit: &Unit, uid: String) -> ObjectReference {
    let ours = format!("{GROUP}/{VERSION}");
    let (api_version, kind, ns, name) = match unit {
        Unit::Vpc(name) => (ours.as_str(), "Vpc", None, name),
        Unit::Subnet(name) => (ours.as_str(), "Subnet", None, name),
        Unit::Node(name) => ("v1", "Node", None, name),
        Unit::Service { ns, name } => ("v1", "Service", Some(ns), name),
        Unit::Pod { ns, name } => ("v1", "Pod", Some(ns), name),
    };
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: ns.cloned(),
        name: Some(name.clone()),
        uid: Some(uid).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}
