//! The states of Subnets and Vpcs into their objects, and the finalizer that keeps a Subnet as long
//! as somebody has an address of it.

use crate::lease::{Candidate, Turn};
use crate::report::{Board, SubnetState, VpcState};
use crate::rows::Problem;
use api::names::DEFAULT_VPC;
use api::{Subnet, SubnetStatus, Vpc, VpcStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// On every Subnet: the object goes when nobody has an address of it.
pub(crate) const FINALIZER: &str = "iaas.yusur.io/addresses";
/// States are collected this long before they are written.
const DEBOUNCE: Duration = Duration::from_millis(500);
/// After a refusal.
const RETRY: Duration = Duration::from_secs(5);

/// Writes states until the token is cancelled, while it is this process's turn: another one's are
/// newer.
pub async fn run(
    client: Client,
    board: Arc<Board>,
    candidate: Candidate,
    mut turn: watch::Receiver<Turn>,
    stop: CancellationToken,
) {
    let subnets: Api<Subnet> = Api::all(client.clone());
    let vpcs: Api<Vpc> = Api::all(client);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turn.wait_for(|turn| candidate.is_current(*turn)) => {}
        }
        let is_current = || candidate.is_current(*turn.borrow());
        let mut pause = DEBOUNCE;
        let states = board.take();
        for (name, state) in states.subnets {
            let written = match is_current() {
                true => Some(write_subnet(&subnets, &name, &state).await),
                false => None,
            };
            if let Some(wait) = left_undone("Subnet", &name, written) {
                pause = wait;
                // A newer state that came meanwhile is better than this one.
                board.put(|states| {
                    states.subnets.entry(name).or_insert(state);
                });
            }
        }
        for (name, state) in states.vpcs {
            let written = match is_current() {
                true => Some(write_vpc(&vpcs, &name, &state).await),
                false => None,
            };
            if let Some(wait) = left_undone("Vpc", &name, written) {
                pause = wait;
                board.put(|states| {
                    states.vpcs.entry(name).or_insert(state);
                });
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = async {
                board.changed().await;
                tokio::time::sleep(pause).await;
            } => {}
        }
    }
}

/// How long to wait before it is tried again; none if it was done.
fn left_undone(kind: &str, name: &str, tried: Option<Result<(), kube::Error>>) -> Option<Duration> {
    match tried {
        Some(Ok(())) => None,
        None => Some(DEBOUNCE),
        // Somebody changed it between look and write.
        Some(Err(kube::Error::Api(status))) if status.code == 409 => Some(DEBOUNCE),
        Some(Err(error)) => {
            let error = anyhow::Error::from(error);
            tracing::warn!(
                "{kind} {name}: its status was not written and is tried again: {error:#}"
            );
            Some(RETRY)
        }
    }
}

async fn write_subnet(
    api: &Api<Subnet>,
    name: &str,
    state: &SubnetState,
) -> Result<(), kube::Error> {
    let Some(mut subnet) = api.get_opt(name).await? else {
        return Ok(());
    };
    if let Some(finalizers) = finalizers(&subnet, state.ports) {
        let patch = json!({"metadata": {
            "resourceVersion": subnet.resource_version(),
            "finalizers": finalizers,
        }});
        subnet = api
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        if subnet.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
    }
    let before = subnet.status.clone().unwrap_or_default();
    let ready = match (&state.ready, subnet.metadata.deletion_timestamp.is_some()) {
        (Ok(()), true) => Err(Problem::new(
            "InUse",
            format!(
                "it is being deleted; {} ports still have addresses of it",
                state.ports
            ),
        )),
        (ready, _) => ready.clone(),
    };
    let status = SubnetStatus {
        v4: state.v4,
        v6: state.v6,
        conditions: vec![condition(
            &before.conditions,
            "Ready",
            &ready,
            "its rows are in OVN and it has addresses to give",
            Some(state.generation),
        )],
    };
    if status == before {
        return Ok(());
    }
    let patch = patch(subnet.metadata.resource_version.as_deref(), &status);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// The status, for the object as it was read: who slept in between must not put an old one back.
fn patch(version: Option<&str>, status: &impl Serialize) -> Value {
    json!({"metadata": {"resourceVersion": version}, "status": status})
}

/// The finalizers that the Subnet should have, if they are not those that it has.
fn finalizers(subnet: &Subnet, ports: usize) -> Option<Vec<String>> {
    let mut finalizers = subnet.metadata.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
    let deleting = subnet.metadata.deletion_timestamp.is_some();
    match (has, deleting) {
        (false, false) => finalizers.push(FINALIZER.to_owned()),
        (true, true) if ports == 0 => finalizers.retain(|finalizer| finalizer != FINALIZER),
        _ => return None,
    }
    Some(finalizers)
}

async fn write_vpc(api: &Api<Vpc>, name: &str, state: &VpcState) -> Result<(), kube::Error> {
    let Some(vpc) = api.get_opt(name).await? else {
        return Ok(());
    };
    let before = vpc.status.clone().unwrap_or_default();
    let egress = if name == DEFAULT_VPC {
        Ok(())
    } else {
        Err(Problem::new(
            "Isolated",
            "pods of this VPC reach neither the outside nor Services, and kubelet's network probes do not reach them",
        ))
    };
    let conditions = vec![
        condition(
            &before.conditions,
            "Ready",
            &state.ready,
            "its rows are in OVN",
            Some(state.generation),
        ),
        condition(
            &before.conditions,
            "Egress",
            &egress,
            "its pods leave by the node that they run on",
            Some(state.generation),
        ),
    ];
    let status = VpcStatus {
        subnets: state.subnets.clone(),
        conditions,
    };
    if status == before {
        return Ok(());
    }
    let patch = patch(vpc.metadata.resource_version.as_deref(), &status);
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// A condition; it keeps its time if its status is what it was.
fn condition(
    before: &[Condition],
    type_: &str,
    state: &Result<(), Problem>,
    good: &str,
    generation: Option<i64>,
) -> Condition {
    let (status, reason, message) = match state {
        Ok(()) => ("True", type_, good.to_owned()),
        Err(problem) => ("False", problem.reason, problem.sentence.clone()),
    };
    let former = before.iter().find(|condition| condition.type_ == type_);
    let since = former.filter(|former| former.status == status);
    Condition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since.map_or_else(
            || Time(Timestamp::now()),
            |former| former.last_transition_time.clone(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(finalizer: bool, deleting: bool) -> Subnet {
        let mut subnet = Subnet::new("s", api::SubnetSpec::new([]));
        subnet.metadata.finalizers = finalizer.then(|| vec!["other".into(), FINALIZER.into()]);
        subnet.metadata.deletion_timestamp = deleting.then_some(Time(Timestamp::UNIX_EPOCH));
        subnet
    }

    #[test]
    fn a_subnet_is_kept_while_somebody_has_an_address_of_it() {
        assert_eq!(finalizers(&subnet(false, false), 0).unwrap(), [FINALIZER]);
        assert_eq!(finalizers(&subnet(true, false), 0), None);
        assert_eq!(finalizers(&subnet(true, true), 3), None);
        assert_eq!(finalizers(&subnet(true, true), 0).unwrap(), ["other"]);
        assert_eq!(finalizers(&subnet(false, true), 0), None);
    }

    #[test]
    fn a_condition_keeps_its_time_until_its_status_changes() {
        let problem = Problem::new("NoAddressLeft", "all are taken");
        let old = Condition {
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
            ..condition(&[], "Ready", &Err(problem.clone()), "", None)
        };
        let same = condition(
            std::slice::from_ref(&old),
            "Ready",
            &Err(problem),
            "",
            Some(2),
        );
        assert_eq!(same.last_transition_time, old.last_transition_time);
        let other = condition(std::slice::from_ref(&old), "Ready", &Ok(()), "good", None);
        assert_ne!(other.last_transition_time, old.last_transition_time);
        assert_eq!((&*other.status, &*other.reason), ("True", "Ready"));
    }
}
