//! What a host asks for, and what it is answered: between the channel's messages and ours. Pure.

use api::{NodeFacts, Role};
use channel::Failure;
use channel::proto::attachment::Subject as WireSubject;
use channel::proto::{self, Reason};
use cni_bin::code;

use super::representor::{CardFunction, Representor};
use crate::attachment::{AttachmentId, End, Far, Pod, PortRecord, Record};
use crate::error::Error;
use crate::row::Row;
use crate::wiring::routes;

/// An attachment that a host asks for. Its shape was checked by the channel; that it may be had was not.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Asked {
    pub(super) key: proto::AttachmentKey,
    pub(super) id: AttachmentId,
    pub(super) host: String,
    pub(super) attempt: u64,
    pub(super) function: CardFunction,
    pub(super) subject: Subject,
}

/// For whom.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Subject {
    /// An interface of a pod.
    Pod {
        pod: Pod,
        /// The subnet that the configuration names.
        subnet: Option<String>,
    },
    /// The host's own interface.
    Host,
}

impl Asked {
    /// Reads a message.
    pub(super) fn of(
        host: &str,
        attachment: proto::Attachment,
    ) -> Result<Self, (proto::AttachmentKey, Failure)> {
        let key = attachment.key.unwrap_or_default();
        let (Some(function), Some(subject)) = (attachment.function, attachment.subject) else {
            let lacks = "The attachment names no function, or neither a pod nor the host.";
            return Err((key, malformed(lacks)));
        };
        let subject = match subject {
            WireSubject::Pod(pod) => Subject::Pod {
                subnet: Some(pod.subnet).filter(|subnet| !subnet.is_empty()),
                pod: Pod {
                    namespace: pod.namespace,
                    name: pod.name,
                    uid: pod.uid,
                },
            },
            WireSubject::Host(_) => Subject::Host,
        };
        // A record without a UID is the host's own.
        if matches!(&subject, Subject::Pod { pod, .. } if pod.uid.is_empty()) {
            return Err((key, malformed("The attachment names no UID of a pod.")));
        }
        Ok(Self {
            id: AttachmentId::of_host(host, &key.sandbox, &key.ifname),
            host: host.to_owned(),
            attempt: attachment.attempt,
            function: function.into(),
            key,
            subject,
        })
    }

    /// The record of it, whole. The names are those of the row: the host's word is not needed for them.
    pub(super) fn record(&self, row: &Row, representor: Representor, mtu: u32) -> Record {
        let pod = match row.facts.pod() {
            Some(port) => Pod {
                namespace: port.namespace.clone(),
                name: port.name.clone(),
                uid: port.uid.clone(),
            },
            None => Pod {
                namespace: String::new(),
                name: self.host.clone(),
                uid: String::new(),
            },
        };
        Record {
            id: self.id.clone(),
            // No network of a runtime has a slash in its name: its GC is not for these.
            network: format!("host/{}", self.host),
            pod,
            netns: std::path::PathBuf::new(),
            port: PortRecord::new(&row.logical_port, row.facts.mac, &row.facts.ips),
            ordinal: self.attempt,
            end: End::Representor(Far {
                link: representor.link,
                plug: representor.plug,
                host: self.host.clone(),
                function: self.function,
                attempt: self.attempt,
                mtu,
            }),
        }
    }
}

/// The largest MTU of an interface over this DPU's underlay.
pub(super) fn mtu(row: &Row, underlay: u32) -> u32 {
    row.facts.mtu.map_or(underlay, |mtu| mtu.min(underlay))
}

/// What the host is told of a row.
pub(super) fn wiring(row: &Row, mtu: u32) -> proto::Wiring {
    let facts = &row.facts;
    let cluster = match &facts.role {
        Role::Pod(_) => None,
        Role::Node(node) => Some(cluster(node)),
    };
    proto::Wiring {
        logical_port: row.logical_port.clone(),
        subnet: facts.subnet.clone(),
        mac: facts.mac.to_string(),
        mtu,
        ips: texts(&facts.ips),
        gateways: texts(&facts.gateways),
        routes: routes(facts)
            .iter()
            .map(|route| proto::Route {
                destination: route.dst.to_string(),
                via: route.via.to_string(),
            })
            .collect(),
        cluster,
    }
}

fn cluster(node: &NodeFacts) -> proto::Cluster {
    proto::Cluster {
        pods: texts(&node.pod_cidrs),
        services: texts(&node.service_cidrs),
        join: texts(&node.join_cidrs),
    }
}

fn texts<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

/// The outcome of one member of a full set.
pub(super) fn synced(
    key: proto::AttachmentKey,
    outcome: Result<proto::Wiring, Failure>,
) -> proto::SyncedAttachment {
    use proto::synced_attachment::Outcome;
    proto::SyncedAttachment {
        key: Some(key),
        outcome: Some(match outcome {
            Ok(wiring) => Outcome::Wiring(wiring),
            Err(failure) => Outcome::Failure(failure.into()),
        }),
    }
}

/// An error as the host is told it.
pub(super) fn failure(reason: Reason, error: Error) -> Failure {
    Failure::new(reason, error.code, error.cause, error.remedy)
}

fn malformed(cause: &str) -> Failure {
    Failure::new(
        Reason::Malformed,
        code::DECODING_FAILURE,
        cause,
        "Let cni-node on the host and on its DPU be of releases that are at most one apart.",
    )
}

/// A later attempt has it.
pub(super) fn old_attempt(asked: &Asked, what: &str, later: Option<u64>) -> Failure {
    let by = later.map_or_else(String::new, |later| format!(" ({later})"));
    Failure::new(
        Reason::OldAttempt,
        code::TRY_AGAIN_LATER,
        format!(
            "{what} is held by a later attempt{by} than this one ({}).",
            asked.attempt
        ),
        "Nothing needs to be done if the pod runs; else the runtime tries again by itself.",
    )
}

/// The card does not have it, or not for this host.
pub(super) fn no_function(function: CardFunction, why: Option<&str>) -> Failure {
    let why = why.map_or_else(String::new, |why| format!(" ({why})"));
    Failure::new(
        Reason::NoFunction,
        code::TRY_AGAIN_LATER,
        format!("The card has no function {function} for this host{why}."),
        "Compare the functions of the host with those of the DPU (devlink port show); correct spec.controller of the Dpu.",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use api::{PodPort, PortFacts};

    use super::*;
    use crate::dpu::representor::Plug;

    fn row(role: Role) -> Row {
        Row {
            logical_port: "default/web/default".into(),
            facts: PortFacts {
                chassis: BTreeSet::from(["d1".to_owned()]),
                host: Some("h1".into()),
                role,
                subnet: "default".into(),
                mac: "0a:58:0a:f4:00:05".parse().unwrap(),
                ips: vec![
                    "10.244.0.5/24".parse().unwrap(),
                    "fd00::5/64".parse().unwrap(),
                ],
                gateways: vec!["10.244.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
                routes: vec![api::Route {
                    dst: "10.96.0.0/16".parse().unwrap(),
                    via: "10.244.0.1".parse().unwrap(),
                }],
                mtu: Some(1300),
                default_route: true,
            },
        }
    }

    fn message(uid: &str) -> proto::Attachment {
        proto::Attachment {
            key: Some(proto::AttachmentKey {
                sandbox: "s1".into(),
                ifname: "eth0".into(),
            }),
            attempt: 7,
            function: Some(proto::Function {
                physical: 0,
                r#virtual: Some(3),
            }),
            subject: Some(WireSubject::Pod(proto::PodInterface {
                namespace: "kube-system".into(),
                name: "forged".into(),
                uid: uid.into(),
                subnet: String::new(),
            })),
        }
    }

    #[test]
    fn names_come_from_the_row_and_addresses_too() {
        let asked = Asked::of("h1", message("u1")).unwrap();
        let row = row(Role::Pod(PodPort {
            namespace: "default".into(),
            name: "web".into(),
            uid: "u1".into(),
            ifname: "eth0".into(),
            target: None,
        }));
        let representor = Representor {
            link: "pf0vf3".into(),
            plug: Plug::System,
        };
        let record = asked.record(&row, representor, mtu(&row, 1442));
        assert_eq!(record.pod.to_string(), "default/web");
        assert_eq!(record.id.container, "h1/s1");
        assert_eq!(
            (record.link().as_str(), record.far().unwrap().mtu),
            ("pf0vf3", 1300)
        );
        let wiring = wiring(&row, mtu(&row, 1442));
        assert_eq!(wiring.ips, ["10.244.0.5/24", "fd00::5/64"]);
        let destinations: Vec<_> = wiring
            .routes
            .iter()
            .map(|r| r.destination.as_str())
            .collect();
        assert_eq!(destinations, ["0.0.0.0/0", "::/0", "10.96.0.0/16"]);
        assert_eq!((wiring.mtu, wiring.cluster), (1300, None));
    }

    #[test]
    fn the_hosts_own_interface_learns_what_lies_behind_it() {
        let mut message = message("u1");
        message.subject = Some(WireSubject::Host(proto::HostInterface {}));
        let asked = Asked::of("h1", message).unwrap();
        let row = row(Role::Node(NodeFacts {
            pod_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            ..NodeFacts::default()
        }));
        let representor = Representor {
            link: "pf0vf0".into(),
            plug: Plug::System,
        };
        let record = asked.record(&row, representor, 1400);
        assert_eq!(
            (record.pod.uid.as_str(), record.pod.name.as_str()),
            ("", "h1")
        );
        assert_eq!(wiring(&row, 1400).cluster.unwrap().pods, ["10.244.0.0/16"]);
    }

    #[test]
    fn what_lacks_a_part_is_malformed() {
        let (_, failure) = Asked::of("h1", message("")).unwrap_err();
        assert_eq!(failure.reason, Reason::Malformed);
        let mut lacking = message("u1");
        lacking.function = None;
        assert!(Asked::of("h1", lacking).is_err());
    }
}
