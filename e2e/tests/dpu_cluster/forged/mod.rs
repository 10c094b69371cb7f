//! Requests that no host of ours would make, to the DPU's running cni-node: each is refused with a code, counted, and an Event on
//! the Dpu. Running pods notice nothing.

mod client;
mod papers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use api::names::CHANNEL_PORT;
use e2e::pairs::Pair;
use e2e::{Node, card, run, until};
use proto::dpu::v1::Reason;
use tokio::runtime::Runtime;
use tonic::Code;

use self::client::{Client, Refused, attachment, key};
use self::papers::Papers;
use crate::recovery::{gap, unnoticed};
use crate::world::{RETURN, World};

/// CNI's and Outboard's codes.
const INVALID_ENVIRONMENT: u32 = 4;
const INVALID_CONFIG: u32 = 7;
const TRY_AGAIN_LATER: u32 = 11;
const REFUSED: u32 = 101;
/// A function that every card of the lab has and nobody uses, and one that none has.
const FREE: u32 = 30;
const NOWHERE: u32 = 4000;
/// Later than any attempt of the lab.
const LATE: u64 = 1 << 40;
/// How soon Events are there.
const TOLD: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);

/// Strangers of all kinds; then somebody with the host's own certificate, while the host is silent.
pub(crate) fn requests(world: &World<'_>) -> Result<String> {
    let (pair, other) = (world.pair(), world.other_pair());
    // Of each reason one refusal a minute is told: a new process has told none.
    for node in [world.dpu(), world.lab.node(&other.dpu)] {
        world.kill_daemon(node)?;
        world.daemon_ready(node)?;
    }
    for pair in [pair, other] {
        pair.wait(world.lab, RETURN)?;
        world.daemon_ready(world.lab.node(&pair.host))?;
    }
    let began = run(&["date", "-u", "+%FT%TZ"])?;
    let before = refusals(world, world.dpu())?;
    let others_before = refusals(world, world.lab.node(&other.dpu))?;
    let watch = world.watch()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;

    let mut refused = forge(world, &runtime)?;
    let mut moment = SystemTime::now();
    awake(world)?;

    let told = [
        "no_certificate",
        "certificate_of_another_authority",
        "certificate_expired",
        "other_host",
        "two_places",
        "no_port",
        "no_function",
        "old_attempt",
        "no_session",
        "malformed",
    ];
    counted(world, world.dpu(), &before, &told)?;
    counted(
        world,
        world.lab.node(&other.dpu),
        &others_before,
        &["other_host"],
    )?;
    let all_told = || {
        events(world, pair, &began, &told)?;
        events(world, other, &began, &["other_host"])
    };
    if all_told().is_err() {
        // A host that met its half awake DPU may have been refused for the same reason, and of each one a minute is told.
        let met = Instant::now();
        until("a minute to pass", 2 * MINUTE, || {
            Ok((met.elapsed() > MINUTE).then_some(()))
        })?;
        refused += forge(world, &runtime)?;
        moment = SystemTime::now();
        awake(world)?;
        all_told()?;
    }
    spoofed(world)?;
    let seen = watch.end(moment, RETURN)?;
    unnoticed(&seen)?;
    world.whole()?;
    Ok(format!(
        "{refused} requests refused, {} reasons counted and told: {}; gap {}",
        told.len(),
        told.join(" "),
        gap(&seen)
    ))
}

/// All of them; their number.
fn forge(world: &World<'_>, runtime: &Runtime) -> Result<usize> {
    let mut all = runtime.block_on(Box::pin(strangers(world)))?;
    let thief = papers::stolen(world.host())?;
    let _silent = Frozen::begin(world, world.host())?;
    all.extend(runtime.block_on(Box::pin(thief_in_session(world, &thief)))?);
    Ok(all.len())
}

/// The real host has its session again.
fn awake(world: &World<'_>) -> Result<()> {
    world.pair().wait(world.lab, RETURN)?;
    world.daemon_ready(world.host())
}

/// Who is not the host of the DPU that is asked.
async fn strangers(world: &World<'_>) -> Result<Vec<Refused>> {
    let (lab, pair, other) = (world.lab, world.pair(), world.other_pair());
    let host = pair.host.as_str();
    let mut all = Vec::new();
    for (what, papers) in [
        ("no certificate", papers::none(lab)?),
        ("another CA", papers::of_another_authority(lab, host)?),
        ("an expired certificate", papers::expired(lab, host)?),
    ] {
        let mut client = connect(world, pair, &papers)?;
        let Err(refused) = client.hello().await else {
            bail!("{what}: the DPU has begun a session");
        };
        // TLS said it: nobody was asked what the request means.
        ensure!(refused.failure.is_none(), "{what}: {refused:?}");
        all.push(refused);
    }
    // Another host's certificate here, and this host's there.
    for (thief, at) in [(other, pair), (pair, other)] {
        let papers = papers::stolen(lab.node(&thief.host))?;
        let mut client = connect(world, at, &papers)?;
        let Err(refused) = client.hello().await else {
            bail!("{} has a session with {}", thief.host, at.dpu);
        };
        refused.is(Code::PermissionDenied, Reason::NoSession, REFUSED)?;
        all.push(refused);
        // Without one nothing can be asked for either: neither a function nor a port.
        let own = world.scene.on(&thief.host)?;
        let pod = (
            own.pod.namespace.as_str(),
            own.pod.name.as_str(),
            own.pod.uid.as_str(),
        );
        let asked = client.attach("guessed", attachment("forged", pod, FREE, LATE));
        let Err(refused) = asked.await else {
            bail!("{} has a port at {}", thief.host, at.dpu);
        };
        refused.is(Code::PermissionDenied, Reason::NoSession, REFUSED)?;
        all.push(refused);
    }
    Ok(all)
}

/// The host's own certificate, in other hands and at another place.
async fn thief_in_session(world: &World<'_>, papers: &Papers) -> Result<Vec<Refused>> {
    let scene = world.scene;
    let of = |node: &str| scene.on(node);
    let (own, others, dpus) = (
        of(&world.pair().host)?,
        of(&world.other_pair().host)?,
        of(&world.pair().dpu)?,
    );
    let name = |pod: &'_ e2e::pods::Pod| (pod.namespace.clone(), pod.name.clone());
    let (namespace, own_name) = name(&own.pod);
    let sandbox = own.sandbox.id.as_str();
    let uid = own.pod.uid.as_str();
    let own_pod = (namespace.as_str(), own_name.as_str(), uid);
    let others_pod = (
        namespace.as_str(),
        others.pod.name.as_str(),
        others.pod.uid.as_str(),
    );
    let dpus_pod = (
        namespace.as_str(),
        dpus.pod.name.as_str(),
        dpus.pod.uid.as_str(),
    );
    let others_uid = (
        namespace.as_str(),
        own_name.as_str(),
        others.pod.uid.as_str(),
    );
    let held = held_function(world)?;

    let mut client = connect(world, world.pair(), papers)?;
    let session = client.hello().await;
    let session = session.map_err(|why| anyhow::anyhow!("the thief's Hello: {why:?}"))?;
    let id = session.id.as_str();
    let mut all = Vec::new();
    let (no_port, old) = (
        (Code::NotFound, Reason::NoPort, TRY_AGAIN_LATER),
        (Code::Aborted, Reason::OldAttempt, TRY_AGAIN_LATER),
    );
    let no_function = (Code::NotFound, Reason::NoFunction, TRY_AGAIN_LATER);
    let malformed = |code| (Code::InvalidArgument, Reason::Malformed, code);
    let late = |pod, function| attachment("forged", pod, function, LATE);
    let mut bad_name = late(own_pod, FREE);
    if let Some(key) = &mut bad_name.key {
        key.ifname = "../eth0".to_owned();
    }
    for (what, asked, (code, reason, cni)) in [
        ("another host's pod", late(others_pod, FREE), no_port),
        ("a pod of the DPU itself", late(dpus_pod, FREE), no_port),
        ("another pod's UID", late(others_uid, FREE), no_port),
        (
            "a function of another host",
            late(own_pod, NOWHERE),
            no_function,
        ),
        ("an old attempt", attachment(sandbox, own_pod, FREE, 1), old),
        (
            "a held function by an old attempt",
            attachment("forged", own_pod, held, 1),
            old,
        ),
        (
            "no attempt",
            attachment(sandbox, own_pod, FREE, 0),
            malformed(INVALID_CONFIG),
        ),
        (
            "a path for a name",
            bad_name,
            malformed(INVALID_ENVIRONMENT),
        ),
    ] {
        session.beat();
        let Err(refused) = client.attach(id, asked).await else {
            bail!("{what}: the thief has it");
        };
        refused
            .is(code, reason, cni)
            .with_context(|| what.to_owned())?;
        all.push(refused);
    }
    // A late DEL is no error, and touches nothing.
    let detached = client.detach(id, key(sandbox), 1).await;
    detached.map_err(|why| anyhow::anyhow!("a DEL of an old attempt: {why:?}"))?;

    // A request that was good in a former session, over the connection that it was good on; and over another one.
    let mut second = connect(world, world.pair(), papers)?;
    let newer = second.hello().await;
    let newer = newer.map_err(|why| anyhow::anyhow!("the second Hello: {why:?}"))?;
    for (mut client, session) in [
        (client.clone(), id),
        (client.clone(), newer.id.as_str()),
        (second.clone(), id),
    ] {
        let mut asked = client.detach(session, key(sandbox), LATE).await;
        // The connection of a session that is over is cut; it may be in the middle of this.
        if asked
            .as_ref()
            .is_err_and(|refused| refused.failure.is_none())
        {
            asked = client.detach(session, key(sandbox), LATE).await;
        }
        let Err(refused) = asked else {
            bail!("a call of another session was obeyed");
        };
        refused.is(Code::FailedPrecondition, Reason::NoSession, TRY_AGAIN_LATER)?;
        all.push(refused);
    }
    Ok(all)
}

fn connect(world: &World<'_>, pair: &Pair, papers: &Papers) -> Result<Client> {
    let (address, _) = world.lab.node(&pair.dpu).addresses();
    Client::new(&format!("{address}:{CHANNEL_PORT}"), &pair.dpu, papers)
}

/// A function that a pod of the host has, or the host itself.
fn held_function(world: &World<'_>) -> Result<u32> {
    let home = card::functions_at_home(world.host())?;
    (0..FREE)
        .find(|function| !home.contains(function))
        .context("all functions are at home")
}

/// Of each reason one more refusal at least is in the DPU's metrics.
fn counted(
    world: &World<'_>,
    dpu: &Node,
    before: &BTreeMap<String, u64>,
    reasons: &[&str],
) -> Result<()> {
    let now = refusals(world, dpu)?;
    for reason in reasons {
        let count = |all: &BTreeMap<String, u64>| all.get(*reason).copied().unwrap_or_default();
        ensure!(
            count(&now) > count(before),
            "{} has not counted {reason}: {before:?}, then {now:?}",
            dpu.name()
        );
    }
    Ok(())
}

/// `outboard_dpu_refused_total`, by reason.
fn refusals(world: &World<'_>, dpu: &Node) -> Result<BTreeMap<String, u64>> {
    let text = world.admin(dpu, "metrics")?;
    let lines = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("outboard_dpu_refused_total{reason=\"")?;
        let (reason, count) = rest.split_once("\"} ")?;
        Some((reason.to_owned(), count.trim().parse().ok()?))
    });
    Ok(lines.collect())
}

/// There is an Event on the Dpu for each of the reasons.
fn events(world: &World<'_>, pair: &Pair, began: &str, reasons: &[&str]) -> Result<()> {
    let uid = world.json(&["get", "dpus.iaas.yusur.io", &pair.object])?;
    let uid = uid["metadata"]["uid"].clone();
    let wanted: BTreeSet<String> = reasons.iter().map(|reason| worded(reason)).collect();
    let what = format!("Events of all refusals on Dpu {}", pair.object);
    until(&what, TOLD, || {
        let list = world.json(&["get", "events.events.k8s.io", "-n", "default"])?;
        let items = list["items"].as_array().into_iter().flatten();
        let ours = items.filter(|event| {
            let made = event["metadata"]["creationTimestamp"].as_str();
            event["regarding"]["uid"] == uid
                && event["reportingInstance"] == pair.dpu.as_str()
                && made.is_some_and(|made| made >= began)
        });
        let said: BTreeSet<String> = ours
            .filter_map(|event| event["reason"].as_str().map(str::to_owned))
            .collect();
        let missing: Vec<_> = wanted.difference(&said).collect();
        ensure!(missing.is_empty(), "missing are {missing:?}");
        Ok(Some(()))
    })
}

/// `old_attempt` → `RefusedOldAttempt`.
fn worded(reason: &str) -> String {
    let words = reason.split('_').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    format!("Refused{}", words.collect::<String>())
}

/// A process of the host speaks in the name of a pod: what it sends arrives nowhere. Under its own address it does.
fn spoofed(world: &World<'_>) -> Result<()> {
    let target = world.scene.on(&world.pair().dpu)?;
    let victim = &world.scene.on(&world.other_pair().host)?.pod.ips[0];
    let to = &target.pod.ips[0];
    let node = world.lab.node(&target.pod.node);
    let netns = format!("--net={}", target.sandbox.netns);
    let inside = |script: &str| node.exec(&["nsenter", &netns, "sh", "-ec", script]);
    let table = |hook: &str| {
        format!(
            "nft -f - <<'RULES'\n\
             table inet forged {{ chain seen {{ type filter hook {hook} priority 300; ip saddr {victim} ip daddr {to} counter; }}; }}\n\
             RULES\n"
        )
    };
    let list = "nft list table inet forged; nft delete table inet forged";
    inside(&table("input"))?;
    // On lo: from ob0 cni-node would take it away.
    let sent = world.host().script(&format!(
        "{}ip addr add {victim}/32 dev lo\n\
         ping -n -c 3 -i 0.2 -W 1 -I {victim} {to} >/dev/null 2>&1 || true\n\
         ip addr del {victim}/32 dev lo\n\
         {list}\n\
         ping -n -c 1 -W 2 {to} >/dev/null",
        table("output")
    ));
    let arrived = inside(list)?;
    let sent = sent.context("a host that speaks as a pod, and then under its own address")?;
    ensure!(
        sent.contains("counter packets 3 ") && arrived.contains("counter packets 0 "),
        "host {} has sent as {victim}: {sent}\nand there arrived: {arrived}",
        world.pair().host
    );
    Ok(())
}

/// cni-node of a node, which neither speaks nor answers as long as this lives.
struct Frozen(String);

impl Frozen {
    fn begin(world: &World<'_>, node: &Node) -> Result<Self> {
        let pid = world.daemon_pid(node)?.context("cni-node does not run")?;
        run(&["kill", "-STOP", &pid])?;
        Ok(Self(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run(&["kill", "-CONT", &self.0]);
    }
}
