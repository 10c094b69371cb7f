//! What a host remembers of an attachment: which function it has, and what that is to look like.

use std::path::PathBuf;

use channel::proto;
use serde::{Deserialize, Serialize};

use super::function::FunctionId;
use super::told::Told;
use crate::attachment::{AttachmentId, Pod};
use crate::store::Entry;

/// What an attachment is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    /// An interface of a pod.
    Pod(Sandbox),
    /// The host's own, in its own namespace.
    Host,
}

/// A sandbox as an ADD names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    pub(crate) pod: Pod,
    /// The Subnet that the configuration names.
    pub(crate) subnet: Option<String>,
    /// Name of the CNI network: GC is asked per network.
    pub(crate) network: String,
    pub(crate) netns: PathBuf,
    /// Which namespace was at that path.
    pub(crate) identity: (u64, u64),
}

/// What the journal keeps. Written before the function is touched, and once more when the interface is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: AttachmentId,
    pub(crate) subject: Subject,
    pub(crate) function: FunctionId,
    /// What it is to look like; none while the attachment is not whole. One that is not at a start is undone.
    pub(crate) told: Option<Told>,
    /// The attempt, as the DPU is told it.
    pub(crate) ordinal: u64,
}

impl Entry for Record {
    fn id(&self) -> &AttachmentId {
        &self.id
    }

    fn ordinal(&self) -> u64 {
        self.ordinal
    }
}

impl Record {
    /// As the DPU names the attachment.
    pub(crate) fn key(&self) -> proto::AttachmentKey {
        proto::AttachmentKey {
            sandbox: self.id.container.clone(),
            ifname: self.id.ifname.clone(),
        }
    }

    /// As the DPU is told of it.
    pub(crate) fn attachment(&self) -> proto::Attachment {
        let subject = match &self.subject {
            Subject::Host => proto::attachment::Subject::Host(proto::HostInterface {}),
            Subject::Pod(Sandbox { pod, subnet, .. }) => {
                proto::attachment::Subject::Pod(proto::PodInterface {
                    namespace: pod.namespace.clone(),
                    name: pod.name.clone(),
                    uid: pod.uid.clone(),
                    subnet: subnet.clone().unwrap_or_default(),
                })
            }
        };
        proto::Attachment {
            key: Some(self.key()),
            attempt: self.ordinal,
            function: Some(self.function.into()),
            subject: Some(subject),
        }
    }

    /// The pod's sandbox; none for the host's own.
    pub(crate) fn sandbox(&self) -> Option<&Sandbox> {
        match &self.subject {
            Subject::Pod(sandbox) => Some(sandbox),
            Subject::Host => None,
        }
    }

    /// Whose it is, for people.
    pub(crate) fn owner(&self) -> String {
        self.sandbox().map_or_else(
            || "this host itself".to_owned(),
            |sandbox| format!("pod {}", sandbox.pod),
        )
    }
}
