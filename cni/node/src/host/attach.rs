//! ADD: a function; the journal alongside the DPU, which is asked → the function into the pod alongside the DPU's search for its
//! wiring → the interface alongside OVN's flows → journal → result.
//!
//! The intent is in the journal before the function is touched; the DPU may be asked meanwhile, since what it plugs for an attempt
//! that is forgotten here goes with the next full set. The function moves, which takes the kernel many milliseconds, before it is known
//! whether the DPU agrees: down, and as nobody's. It moves only in a session: by then the DPU has heard that its former owner is gone.
//! What a failure leaves is undone here; what a kill leaves, by the reconcile loop.

use std::time::Duration;

use channel::Attaching;
use cni_bin::cni::CNIResult;
use cni_bin::code;
use fail::fail_point;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::detach;
use super::function::Function;
use super::journey;
use super::node::{HOST, HostNode};
use super::record::{Record, Sandbox, Subject};
use super::told::Told;
use crate::attachment::AttachmentId;
use crate::call::Add;
use crate::error::Error;
use crate::netns::Netns;
use crate::node::UNDO;
use crate::stages::{Stages, timed};
use crate::under_way::Going;
use crate::wiring;

/// How long an ADD waits for a function that is on its way home. A namespace that ends gives it back within this.
const RETURN: Duration = Duration::from_secs(3);

/// Serves an ADD.
pub(crate) async fn add(
    node: &HostNode,
    add: &Add,
    stages: &mut Stages,
    deadline: Instant,
) -> Result<CNIResult, Error> {
    if add.id.container == HOST {
        return Err(Error::new(
            code::INVALID_ENVIRONMENT,
            format!("CNI_CONTAINERID is {HOST:?}, which stands for the host itself."),
            "Give the sandbox another identity.",
        ));
    }
    let going = node.under_way.begin(&add.id);
    let _alone = node.locks.lock(&add.id.host_link()).await;
    going.unless_given_up(node.recovered(deadline)).await?;
    let netns = Netns::of_pod(&add.netns)?;
    free(node, add).await?;
    let function = going.unless_given_up(function(node, add, deadline));
    let function = stages.measure("function", function).await?;
    let record = Record {
        id: add.id.clone(),
        subject: Subject::Pod(Sandbox {
            pod: add.pod.clone(),
            subnet: add.keys.subnet.clone(),
            network: add.network.clone(),
            netns: add.netns.clone(),
            identity: netns.identity(),
        }),
        function: function.id,
        told: None,
        ordinal: node.store.ordinal(),
    };
    let attempt = Attempt {
        node,
        add,
        netns: &netns,
        function: &function,
        going: &going,
        deadline,
    };
    match Box::pin(attempt.run(record.clone(), stages)).await {
        Ok(told) => {
            let wiring = told.wiring(&add.id);
            Ok(wiring::result_after(None, function.pci, &wiring, add))
        }
        Err(error) => {
            detach::undo(node, &record).await;
            Err(error)
        }
    }
}

/// An attachment is added once. One whose function is not in the pod any more is no longer one.
async fn free(node: &HostNode, add: &Add) -> Result<(), Error> {
    let Some(old) = node.store.get(&add.id) else {
        return Ok(());
    };
    let whole = old.told.is_some() && detach::is_in_pod(node, &old).await?;
    if whole {
        return Err(Error::new(
            code::REFUSED,
            format!(
                "Interface {} of {} is attached already.",
                add.id,
                old.owner()
            ),
            "An attachment is added once (CNI specification, section \"ADD\"): DEL it first.",
        ));
    }
    detach::remove(node, &old, &mut Stages::default(), Instant::now() + UNDO).await
}

/// The function for an ADD: the one that a device plugin has given to the pod, or the lowest free one.
async fn function(node: &HostNode, add: &Add, deadline: Instant) -> Result<Function, Error> {
    let mut changed = node.card.changed();
    let patience = deadline.min(Instant::now() + RETURN);
    let mut looked = false;
    loop {
        changed.mark_unchanged();
        let found = match &add.keys.device {
            None => node.card.claim(&add.id),
            Some(device) => Box::pin(certain(node, add, device, deadline)).await?,
        };
        if let Some(function) = found {
            return Ok(function);
        }
        if !looked {
            looked = true;
            node.card.look().await?;
        } else if !crate::wait::change(&mut changed, patience).await {
            return Err(none_free(add));
        }
    }
}

/// The function that a device plugin has given to the pod. That its former owner was not detached yet is no reason to wait: the
/// device plugin says that it is over. A function of the host itself is another matter.
async fn certain(
    node: &HostNode,
    add: &Add,
    device: &str,
    deadline: Instant,
) -> Result<Option<Function>, Error> {
    let device = node.card.provider().named(device)?;
    let device = device.as_str();
    let Some((function, holder)) = node.card.by_device(device) else {
        return Ok(None);
    };
    let Some(old) = holder else {
        return Ok(node.card.claim_this(function.id, &add.id));
    };
    if old.container == HOST {
        return Err(Error::new(
            code::REFUSED,
            format!(
                "Function {} ({device}) of the card is in use by this host itself.",
                function.id
            ),
            "Leave it out of what the device plugin hands out.",
        ));
    }
    take_over(node, &old, deadline).await?;
    Ok(node.card.claim_this(function.id, &add.id))
}

/// Detaches what holds the function that a younger attachment asks for. Its DEL finds nothing left to do.
async fn take_over(node: &HostNode, old: &AttachmentId, deadline: Instant) -> Result<(), Error> {
    node.under_way.give_up(old);
    let key = old.host_link();
    let lock = tokio::time::timeout_at(deadline, node.locks.lock(&key));
    let Ok(_alone) = lock.await else {
        return Err(Error::new(
            code::TRY_AGAIN_LATER,
            format!("The function is held by {old}, with which another operation is busy."),
            "The runtime tries again by itself.",
        ));
    };
    let Some(record) = node.store.get(old) else {
        return Ok(());
    };
    tracing::info!(function = %record.function, sandbox = old.container, ifname = old.ifname, "a younger pod takes the function over before the DEL");
    detach::remove(node, &record, &mut Stages::default(), deadline).await
}

fn none_free(add: &Add) -> Error {
    let (what, remedy) = match &add.keys.device {
        None => (
            "no function of the card is free".to_owned(),
            "Give the card more functions, or run fewer pods on this host.",
        ),
        Some(device) => (
            format!("the card has no free function {device}"),
            "See that the device plugin hands out functions of this card, and that its former pod has ended.",
        ),
    };
    Error::new(
        code::TRY_AGAIN_LATER,
        format!("Pod {}: {what}.", add.pod),
        remedy,
    )
}

/// The part of an ADD that has side effects.
struct Attempt<'a> {
    node: &'a HostNode,
    add: &'a Add,
    netns: &'a Netns,
    function: &'a Function,
    going: &'a Going<'a>,
    deadline: Instant,
}

impl Attempt<'_> {
    async fn run(&self, record: Record, stages: &mut Stages) -> Result<Told, Error> {
        let asked = Instant::now();
        self.node.attached.enter(&record);
        let ((kept, journal), attaching) =
            tokio::join!(timed(self.intend(&record)), self.begin(&record));
        stages.note("intent", journal);
        kept?;
        let mut attaching = attaching?;
        let told = self.told_and_moved(&mut attaching, asked, stages).await?;
        fail_point!("host::wired");
        self.finish(attaching, record, &told, stages).await?;
        Ok(told)
    }

    async fn intend(&self, record: &Record) -> Result<(), Error> {
        self.node.store.insert(record.clone()).await?;
        fail_point!("host::intent");
        Ok(())
    }

    /// The DPU has the request.
    async fn begin(&self, record: &Record) -> Result<Attaching, Error> {
        let asking = async {
            let link = &self.node.link;
            let asked = link.attach(record.attachment(), self.deadline);
            Ok(Box::pin(asked).await?)
        };
        let asking = self.node.unless_lost(asking);
        self.going.unless_given_up(asking).await
    }

    /// What the DPU says, and the function in the pod. `asked`: since when the DPU has been asked.
    async fn told_and_moved(
        &self,
        attaching: &mut Attaching,
        asked: Instant,
        stages: &mut Stages,
    ) -> Result<Told, Error> {
        let unwanted = CancellationToken::new();
        let (card, ifname) = (&self.node.card, &self.add.id.ifname);
        let moving = journey::enter(card, self.function, self.netns, ifname, &unwanted);
        let telling = async { (self.told(attaching).await, asked.elapsed()) };
        let ((moved, way), told) = both(timed(moving), telling, |told| {
            if told.0.is_err() {
                unwanted.cancel();
            }
        })
        .await;
        stages.note("move", way);
        moved?;
        let (told, time) = told.await;
        stages.note("wiring", time);
        told
    }

    /// The DPU's part until the wiring is known.
    async fn told(&self, attaching: &mut Attaching) -> Result<Told, Error> {
        let asking = async { Ok(Box::pin(attaching.wiring()).await?) };
        let asking = self.node.unless_lost(asking);
        let wiring = self.going.unless_given_up(asking).await?;
        let keys = &self.add.keys;
        let told = Told::read(&wiring, keys.mtu)?;
        wiring::agree(keys, &told.logical_port, told.mac, &told.ips)
            .map_err(|error| error.about(format!("Pod {}", self.add.pod)))?;
        Ok(told)
    }

    /// The interface, while the DPU waits for the flows.
    async fn finish(
        &self,
        attaching: Attaching,
        record: Record,
        told: &Told,
        stages: &mut Stages,
    ) -> Result<(), Error> {
        let there = async { Ok(Box::pin(attaching.installed()).await?) };
        let there = self.node.unless_lost(there);
        let there = timed(self.going.unless_given_up(there));
        let here = timed(self.wire(record, told));
        let ((wired, netns), installed) = both(here, there, |_| ()).await;
        let [namespace, journal] = netns_and_journal(&wired, netns);
        stages.note("netns", namespace);
        stages.note("journal", journal);
        wired?;
        let (installed, flows) = installed.await;
        stages.note("ovn_installed", flows);
        installed?;
        fail_point!("host::installed");
        Ok(())
    }

    /// Returns how long the journal took of it.
    async fn wire(&self, mut record: Record, told: &Told) -> Result<Duration, Error> {
        let wiring = told.wiring(&record.id);
        journey::set_up(&self.node.card, self.function, self.netns, &wiring).await?;
        record.told = Some(told.clone());
        let (kept, time) = timed(self.node.store.replace(record)).await;
        kept.map(|()| time)
    }
}

/// Runs both, `here` to its end: a namespace thread that is left alone could act after the undo. If `there` ends first, `seen` gets its
/// outcome at once. The rest of `there` is the caller's to await, or to drop when `here` has failed.
async fn both<Here, There>(
    here: impl Future<Output = Here>,
    there: impl Future<Output = There>,
    seen: impl FnOnce(&There),
) -> (Here, impl Future<Output = There>) {
    let (mut here, mut there) = (Box::pin(here), Box::pin(there));
    let (done, ended) = tokio::select! {
        done = &mut here => (done, None),
        ended = &mut there => {
            seen(&ended);
            (here.await, Some(ended))
        }
    };
    let rest = async move {
        match ended {
            Some(ended) => ended,
            None => there.await,
        }
    };
    (done, rest)
}

fn netns_and_journal(wired: &Result<Duration, Error>, both: Duration) -> [Duration; 2] {
    let journal = *wired.as_ref().unwrap_or(&Duration::ZERO);
    [both.saturating_sub(journal), journal]
}
