//! The other end of the channel: a bridge in a network namespace `dpu`, and wirings that do not change.

use std::collections::BTreeMap;
use std::sync::Mutex;

use channel::proto::attachment::Subject;
use channel::proto::synced_attachment::Outcome;
use channel::proto::{
    Attachment, AttachmentKey, Cluster, Reason, Route, SyncedAttachment, Trouble, Wiring,
};
use channel::{Failure, Ports};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::gateway::tests::sandbox::sh;

/// What it holds, by sandbox and interface.
type Held = BTreeMap<(String, String), Attachment>;

pub(super) struct Bridge {
    /// The last byte of a pod's addresses, by its UID.
    pods: Mutex<BTreeMap<String, u8>>,
    held: Mutex<Held>,
    /// Wirings are told while this is true.
    pub(super) tells: watch::Sender<bool>,
    /// Flows are installed while this is true.
    pub(super) installs: watch::Sender<bool>,
    pub(super) troubles: watch::Sender<Vec<Trouble>>,
    pub(super) sets: watch::Sender<usize>,
}

fn name(key: &AttachmentKey) -> (String, String) {
    (key.sandbox.clone(), key.ifname.clone())
}

fn end(attachment: &Attachment) -> String {
    let function = attachment.function.unwrap();
    format!("pf{}vf{}", function.physical, function.r#virtual.unwrap())
}

fn uid(attachment: &Attachment) -> Option<(String, String)> {
    let ifname = attachment.key.as_ref()?.ifname.clone();
    match attachment.subject.as_ref()? {
        Subject::Pod(pod) => Some((pod.uid.clone(), ifname)),
        Subject::Host(_) => None,
    }
}

impl Bridge {
    pub(super) fn new() -> Self {
        sh("ip netns add dpu
            ip -n dpu link add br0 type bridge
            ip -n dpu addr add 10.244.0.1/24 dev br0
            ip -n dpu addr add fd00:10:244::1/64 dev br0 nodad
            ip -n dpu addr add 100.64.0.1/16 dev br0
            ip -n dpu link set br0 up
            ip netns exec dpu sysctl -qw net.ipv4.ip_forward=1");
        Self {
            pods: Mutex::default(),
            held: Mutex::default(),
            tells: watch::Sender::new(true),
            installs: watch::Sender::new(true),
            troubles: watch::Sender::new(Vec::new()),
            sets: watch::Sender::new(0),
        }
    }

    /// Gives a pod its addresses.
    pub(super) fn allocate(&self, uid: &str, host: u8) {
        self.pods.lock().unwrap().insert(uid.to_owned(), host);
    }

    /// The sandboxes that it holds, without the host's own.
    pub(super) fn sandboxes(&self) -> Vec<String> {
        let held = self.held.lock().unwrap();
        let sandboxes = held.keys().map(|(sandbox, _)| sandbox.clone());
        sandboxes.filter(|sandbox| sandbox != "host").collect()
    }

    /// Plugs again what it holds, as a DPU does whose representor came back.
    pub(super) fn plug_again(&self) {
        for attachment in self.held.lock().unwrap().values() {
            plug(attachment);
        }
    }

    /// Loses everything, as in a reboot.
    pub(super) fn forget(&self) {
        self.held.lock().unwrap().clear();
    }

    fn wiring(&self, attachment: &Attachment) -> Result<Wiring, Failure> {
        let (mac, ips, gateways, routes, cluster) = match attachment.subject.as_ref().unwrap() {
            Subject::Pod(pod) => {
                let pods = self.pods.lock().unwrap();
                let Some(host) = pods.get(&pod.uid) else {
                    return Err(Failure::new(
                        Reason::NoPort,
                        cni_bin::code::TRY_AGAIN_LATER,
                        format!("Pod {}/{}: no port on this host.", pod.namespace, pod.name),
                        "Wait.",
                    ));
                };
                (
                    format!("0a:58:0a:f4:00:{host:02x}"),
                    vec![
                        format!("10.244.0.{host}/24"),
                        format!("fd00:10:244::{host:x}/64"),
                    ],
                    vec!["10.244.0.1", "fd00:10:244::1"],
                    vec![("0.0.0.0/0", "10.244.0.1"), ("::/0", "fd00:10:244::1")],
                    None,
                )
            }
            Subject::Host(_) => (
                "0a:58:64:40:00:02".to_owned(),
                vec!["100.64.0.2/16".to_owned()],
                vec!["100.64.0.1"],
                Vec::new(),
                Some(Cluster {
                    pods: vec!["10.244.0.0/16".to_owned()],
                    services: vec!["10.96.0.0/16".to_owned()],
                    join: vec!["100.64.0.0/16".to_owned()],
                }),
            ),
        };
        Ok(Wiring {
            logical_port: format!("port/{}", attachment.key.as_ref().unwrap().sandbox),
            subnet: "default".to_owned(),
            mac,
            mtu: 1400,
            ips,
            gateways: gateways.into_iter().map(str::to_owned).collect(),
            routes: routes
                .into_iter()
                .map(|(destination, via)| Route {
                    destination: destination.to_owned(),
                    via: via.to_owned(),
                })
                .collect(),
            cluster,
        })
    }

    /// Older claims on the function or on the pod's port go.
    fn hold(&self, attachment: &Attachment) -> Result<(), Failure> {
        let mut held = self.held.lock().unwrap();
        let key = name(attachment.key.as_ref().unwrap());
        let rival = |other: &Attachment| {
            other.function == attachment.function
                || (uid(other).is_some() && uid(other) == uid(attachment))
        };
        if held
            .iter()
            .any(|(one, other)| *one != key && rival(other) && other.attempt > attachment.attempt)
        {
            return Err(Failure::new(
                Reason::OldAttempt,
                cni_bin::code::TRY_AGAIN_LATER,
                "A younger attempt holds it.",
                "Nothing.",
            ));
        }
        held.retain(|one, other| *one == key || !rival(other));
        held.insert(key, attachment.clone());
        plug(attachment);
        Ok(())
    }
}

fn plug(attachment: &Attachment) {
    let end = end(attachment);
    // It may have gone meanwhile, as a representor may.
    sh(&format!("ip -n dpu link set {end} master br0 up || true"));
}

fn unplug(attachment: &Attachment) {
    let end = end(attachment);
    sh(&format!("ip -n dpu link set {end} nomaster down || true"));
}

#[async_trait::async_trait]
impl Ports for Bridge {
    async fn sync(&self, _host: &str, set: Vec<Attachment>) -> Vec<SyncedAttachment> {
        let keys: Vec<_> = set
            .iter()
            .map(|one| name(one.key.as_ref().unwrap()))
            .collect();
        self.held.lock().unwrap().retain(|key, attachment| {
            let stays = keys.contains(key);
            if !stays {
                unplug(attachment);
            }
            stays
        });
        let outcome = |one: &Attachment| {
            let wired = self
                .wiring(one)
                .and_then(|wiring| self.hold(one).map(|()| wiring));
            match wired {
                Ok(wiring) => Outcome::Wiring(wiring),
                Err(failure) => Outcome::Failure(failure.into()),
            }
        };
        let answer = set
            .iter()
            .map(|one| SyncedAttachment {
                key: one.key.clone(),
                outcome: Some(outcome(one)),
            })
            .collect();
        self.sets.send_modify(|sets| *sets += 1);
        answer
    }

    async fn attach(
        &self,
        _host: &str,
        attachment: Attachment,
        wiring: oneshot::Sender<Wiring>,
        deadline: Instant,
        given_up: CancellationToken,
    ) -> Result<(), Failure> {
        let mut tells = self.tells.subscribe();
        tokio::select! {
            _ = tells.wait_for(|tells| *tells) => {}
            () = given_up.cancelled() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
        let wired = self.wiring(&attachment)?;
        self.hold(&attachment)?;
        let _ = wiring.send(wired);
        let mut installs = self.installs.subscribe();
        let installed = tokio::select! {
            _ = installs.wait_for(|installs| *installs) => true,
            () = given_up.cancelled() => false,
            () = tokio::time::sleep_until(deadline) => false,
        };
        if installed {
            return Ok(());
        }
        let key = attachment.key.clone().unwrap();
        self.detach("h1", key, attachment.attempt, deadline).await?;
        Err(Failure::new(
            Reason::NotReady,
            cni_bin::code::TRY_AGAIN_LATER,
            "The flows are not in place.",
            "Wait.",
        ))
    }

    async fn detach(
        &self,
        _host: &str,
        key: AttachmentKey,
        attempt: u64,
        _deadline: Instant,
    ) -> Result<(), Failure> {
        let mut held = self.held.lock().unwrap();
        if held
            .get(&name(&key))
            .is_some_and(|attachment| attachment.attempt <= attempt)
        {
            unplug(&held.remove(&name(&key)).unwrap());
        }
        Ok(())
    }

    async fn check(
        &self,
        _host: &str,
        key: AttachmentKey,
        attempt: u64,
        _deadline: Instant,
    ) -> Result<Wiring, Failure> {
        let attachment = self.held.lock().unwrap().get(&name(&key)).cloned();
        match attachment.filter(|attachment| attachment.attempt == attempt) {
            Some(attachment) => self.wiring(&attachment),
            None => Err(Failure::new(
                Reason::Unspecified,
                cni_bin::code::CHECK_FAILED,
                format!(
                    "Interface {} of sandbox {}: the DPU has no port for it.",
                    key.ifname, key.sandbox
                ),
                "Recreate the pod.",
            )),
        }
    }

    fn troubles(&self) -> watch::Receiver<Vec<Trouble>> {
        self.troubles.subscribe()
    }
}
