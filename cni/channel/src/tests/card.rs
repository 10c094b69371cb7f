//! Ports of a card that is a table: what a test wants of an attachment is the name of its sandbox.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::proto::synced_attachment::Outcome;
use crate::proto::{
    self, Attachment, AttachmentKey, Function, PodInterface, Reason, SyncedAttachment, Trouble,
    Wiring, attachment::Subject,
};
use crate::{Failure, Ports};

pub(super) struct Card {
    records: Mutex<BTreeMap<String, u64>>,
    /// What was done, in order.
    log: watch::Sender<Vec<String>>,
    pub(super) troubles: watch::Sender<Vec<Trouble>>,
    /// While false, full sets wait.
    pub(super) open: watch::Sender<bool>,
    /// Lets one `stubborn` attachment end.
    pub(super) enough: Notify,
}

impl Card {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            records: Mutex::default(),
            log: watch::Sender::new(Vec::new()),
            troubles: watch::Sender::new(Vec::new()),
            open: watch::Sender::new(true),
            enough: Notify::new(),
        })
    }

    /// The attachments that are plugged in.
    pub(super) fn plugged(&self) -> Vec<String> {
        self.records.lock().unwrap().keys().cloned().collect()
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    fn note(&self, what: impl Into<String>) {
        self.log.send_modify(|log| log.push(what.into()));
    }

    /// Returns once that was done so often.
    pub(super) async fn done(&self, what: &str, times: usize) {
        let mut log = self.log.subscribe();
        let waited = log.wait_for(|log| log.iter().filter(|one| *one == what).count() >= times);
        let waited = tokio::time::timeout(super::world::LONG, waited).await;
        assert!(
            waited.is_ok(),
            "{times} times {what}, but: {:?}",
            self.log()
        );
    }

    fn plug(&self, name: &str, attempt: u64) {
        self.records
            .lock()
            .unwrap()
            .insert(name.to_owned(), attempt);
    }
}

pub(super) fn key(sandbox: &str) -> AttachmentKey {
    AttachmentKey {
        sandbox: sandbox.to_owned(),
        ifname: "eth0".to_owned(),
    }
}

pub(super) fn attachment(sandbox: &str, attempt: u64) -> Attachment {
    Attachment {
        key: Some(key(sandbox)),
        attempt,
        function: Some(Function {
            physical: 0,
            r#virtual: Some(3),
        }),
        subject: Some(Subject::Pod(PodInterface {
            namespace: "default".to_owned(),
            name: format!("pod-{sandbox}"),
            uid: format!("uid-{sandbox}"),
            subnet: String::new(),
        })),
    }
}

pub(super) fn wiring(sandbox: &str) -> Wiring {
    Wiring {
        logical_port: format!("default/pod-{sandbox}"),
        subnet: "default".to_owned(),
        mac: "0a:58:0a:f4:00:05".to_owned(),
        mtu: 1400,
        ips: vec!["10.244.0.5/24".to_owned()],
        gateways: vec!["10.244.0.1".to_owned()],
        routes: vec![proto::Route {
            destination: "0.0.0.0/0".to_owned(),
            via: "10.244.0.1".to_owned(),
        }],
        cluster: None,
    }
}

/// What the sandbox `refused` is told: with a reason of tomorrow.
pub(super) fn refusal() -> Failure {
    Failure::from(proto::Failure {
        reason: 4711,
        code: 142,
        cause: "pod »default/é« has no port".to_owned(),
        remedy: "wait for cni-controller".to_owned(),
    })
}

fn sandbox(attachment: &Attachment) -> String {
    attachment.key.clone().unwrap().sandbox
}

#[async_trait::async_trait]
impl Ports for Card {
    async fn sync(&self, host: &str, set: Vec<Attachment>) -> Vec<SyncedAttachment> {
        let mut names: Vec<_> = set.iter().map(sandbox).collect();
        names.sort();
        self.note(format!("sync {host} {}", names.join(",")));
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
        self.records.lock().unwrap().clear();
        let mut answers = Vec::new();
        for attachment in set {
            let name = sandbox(&attachment);
            self.plug(&name, attachment.attempt);
            answers.push(SyncedAttachment {
                key: attachment.key,
                outcome: Some(Outcome::Wiring(wiring(&name))),
            });
        }
        self.note(format!("synced {host} {}", names.join(",")));
        answers
    }

    async fn attach(
        &self,
        _host: &str,
        attachment: Attachment,
        wired: oneshot::Sender<Wiring>,
        deadline: Instant,
        given_up: CancellationToken,
    ) -> Result<(), Failure> {
        let name = sandbox(&attachment);
        assert!(deadline > Instant::now());
        self.note(format!("attach {name}"));
        match &*name {
            "refused" => return Err(refusal()),
            "taken" => {
                let cause = "function 0.3 is that of another";
                return Err(Failure::new(Reason::FunctionTaken, 11, cause, "wait"));
            }
            _ => {}
        }
        self.plug(&name, attachment.attempt);
        let _ = wired.send(wiring(&name));
        if name.starts_with("slow") {
            given_up.cancelled().await;
            self.records.lock().unwrap().remove(&name);
            self.note(format!("undone {name}"));
            return Err(Failure::new(Reason::Unspecified, 11, "given up", "wait"));
        }
        // One that looks at the token too late.
        if name.starts_with("stubborn") {
            self.enough.notified().await;
            self.note(format!("installed {name}"));
        }
        Ok(())
    }

    async fn detach(
        &self,
        _host: &str,
        key: AttachmentKey,
        attempt: u64,
        _deadline: Instant,
    ) -> Result<(), Failure> {
        let mut records = self.records.lock().unwrap();
        if records
            .get(&key.sandbox)
            .is_some_and(|&held| held <= attempt)
        {
            records.remove(&key.sandbox);
        }
        drop(records);
        self.note(format!("detach {}", key.sandbox));
        Ok(())
    }

    async fn check(
        &self,
        _host: &str,
        key: AttachmentKey,
        _attempt: u64,
        _deadline: Instant,
    ) -> Result<Wiring, Failure> {
        let there = self.records.lock().unwrap().contains_key(&key.sandbox);
        there
            .then(|| wiring(&key.sandbox))
            .ok_or_else(|| Failure::new(Reason::NoPort, 100, "it is gone", "DEL and ADD"))
    }

    fn troubles(&self) -> watch::Receiver<Vec<Trouble>> {
        self.troubles.subscribe()
    }
}
