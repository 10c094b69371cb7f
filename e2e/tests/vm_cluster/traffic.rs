//! What goes between the guest and a pod, and what of it is lost while the machine moves.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::libvirt::Domain;
use e2e::pods::{self, Family};
use e2e::{Lab, Process, until};
use serde_json::Value;

use crate::MINUTE;
use crate::launcher::Nic;

const NAMESPACE: &str = "default";
const POD: &str = "peer";
const NODE: &str = "n1";

/// Seconds between two requests of a [`Flow`].
const INTERVAL: f64 = 0.05;
/// Of the guest, whose pings are slower than the pod's.
const GUESTS_INTERVAL: f64 = 0.1;

/// A pod.
pub(crate) struct Peer {
    v4: String,
    v6: String,
    netns: String,
}

impl Peer {
    /// Starts it.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        lab.apply(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {POD}, namespace: {NAMESPACE}}}\nspec:\n  nodeName: {NODE}\n  \
             terminationGracePeriodSeconds: 1\n  automountServiceAccountToken: false\n  containers:\n  \
             - {{name: c, image: '{}', imagePullPolicy: Never, command: [sh, -c, 'mkdir -p /www; echo peer >/www/index.html; \
             exec httpd -f -p 80 -h /www']}}\n",
            lab.image()
        ))?;
        lab.wait_ready(NAMESPACE, POD, MINUTE)?;
        let pod = pods::one(lab, NAMESPACE, POD)?;
        Ok(Self {
            v4: pod.ip(Family::V4)?.to_owned(),
            v6: pod.ip(Family::V6)?.to_owned(),
            netns: e2e::sandbox(lab.node(NODE), &pod.uid)?.netns,
        })
    }

    /// Deletes it.
    pub(crate) fn remove(&self, lab: &Lab) -> Result<()> {
        lab.kubectl(&["delete", "pod", "-n", NAMESPACE, POD])
            .map(drop)
    }
}

/// The guest pings the pod, both families.
pub(crate) fn pings(domain: &Domain<'_>, peer: &Peer) -> Result<()> {
    for ip in [&peer.v4, &peer.v6] {
        domain.run(&format!("ping -q -c 2 -W 2 {ip}"))?;
    }
    Ok(())
}

/// The pod pings the guest, both families.
pub(crate) fn is_pinged(lab: &Lab, nic: &Nic) -> Result<()> {
    for v6 in [false, true] {
        let ip = nic.ip(v6)?;
        lab.pod_exec(NAMESPACE, POD, &["ping", "-q", "-c", "2", "-W", "2", ip])?;
    }
    Ok(())
}

/// The guest reads the pod's page by TCP.
pub(crate) fn page(domain: &Domain<'_>, peer: &Peer) -> Result<()> {
    let page = domain.run(&format!("wget -q -O - http://{}/", peer.v4))?;
    ensure!(page == "peer", "the pod's page is {page:?}");
    Ok(())
}

/// The guest sends the pod datagrams, which iperf3 counts: one in 20 may be lost on a busy machine.
pub(crate) fn datagrams(lab: &Lab, domain: &Domain<'_>, peer: &Peer) -> Result<()> {
    let node = lab.node(NODE);
    let netns = format!("--net={}", peer.netns);
    let server = node.start(
        "iperf3",
        &[
            "nsenter",
            &netns,
            "iperf3",
            "--server",
            "--one-off",
            "--port",
            "5201",
        ],
    )?;
    let listens = ["nsenter", &netns, "ss", "-Hltn", "sport", "=", ":5201"];
    until("iperf3 to listen", Duration::from_secs(10), || {
        Ok((!node.exec(&listens)?.is_empty()).then_some(()))
    })?;
    let said = domain.run(&format!(
        "iperf3 --client {} --port 5201 --udp --bitrate 2M --length 1200 --time 2 --json",
        peer.v4
    ));
    server.terminate()?;
    let said = said?;
    let report: Value =
        serde_json::from_str(&said).with_context(|| format!("iperf3 printed no JSON: {said}"))?;
    let sum = &report["end"]["sum"];
    let (packets, lost) = (sum["packets"].as_u64(), sum["lost_packets"].as_u64());
    eprintln!("datagrams: {packets:?}, lost: {lost:?}");
    ensure!(
        packets.is_some_and(|packets| packets >= 100 && lost.unwrap_or(packets) * 20 <= packets),
        "of {packets:?} datagrams {lost:?} were lost: {said}"
    );
    Ok(())
}

/// Pings both ways, all the time.
pub(crate) struct Flow<'a> {
    to_guest: Process,
    nic: &'a Nic,
}

/// What became of one way's requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loss {
    /// How many were sent up to the last that was answered.
    pub(crate) sent: usize,
    pub(crate) lost: usize,
    /// The longest time without an answer, by the sender's clock.
    pub(crate) longest: Duration,
}

impl<'a> Flow<'a> {
    /// Begins; returns when both ways were answered.
    pub(crate) fn start(
        lab: &Lab,
        name: &str,
        domain: &Domain<'_>,
        peer: &Peer,
        nic: &'a Nic,
    ) -> Result<Self> {
        let netns = format!("--net={}", peer.netns);
        let interval = INTERVAL.to_string();
        let ping = ["ping", "-n", "-D", "-i", &interval, nic.ip(false)?];
        let argv = [&["nsenter", &netns][..], &ping].concat();
        let to_guest = lab.node(NODE).start(&format!("ping-{name}"), &argv)?;
        domain.run(&format!(
            "setsid ping -i {GUESTS_INTERVAL} {} </dev/null >/run/flow 2>&1 &\necho $! >/run/flow.pid",
            peer.v4
        ))?;
        let flow = Self { to_guest, nic };
        until("answers both ways", MINUTE, || {
            let guests = domain.run("grep -c seq= /run/flow || true")?;
            Ok((flow.answers()?.len() > 2 && guests.parse::<usize>()? > 2).then_some(()))
        })?;
        Ok(flow)
    }

    /// Ends it, some answers after the present one: what the pod's requests met, and the guest's.
    pub(crate) fn stop(self, domain: &Domain<'_>) -> Result<[Loss; 2]> {
        let before = self.answers()?.len();
        until(
            &format!("an answer of {}", self.nic.ip(false)?),
            MINUTE,
            || Ok((self.answers()?.len() > before + 3).then_some(())),
        )?;
        self.to_guest.terminate()?;
        let pods = Loss::of(&self.answers()?, |(from, to)| to.1 - from.1)?;
        let said = domain.run(
            "kill -INT $(cat /run/flow.pid)\nsed -n 's/.* seq=\\([0-9]*\\) .*/\\1/p' /run/flow\nrm /run/flow",
        )?;
        let answers: Vec<(u32, f64)> = said
            .lines()
            .map(|line| Ok((line.parse()?, 0.0)))
            .collect::<Result<_>>()?;
        let guests = Loss::of(&answers, |(from, to)| {
            f64::from(to.0 - from.0) * GUESTS_INTERVAL
        })?;
        Ok([pods, guests])
    }

    /// Numbers and times of the answers that the pod has had.
    fn answers(&self) -> Result<Vec<(u32, f64)>> {
        let text = std::fs::read_to_string(self.to_guest.log()?)?;
        // "[1763797000.123456] 64 bytes from 10.210.0.2: icmp_seq=7 ttl=64 time=1.23 ms"
        let answers = text.lines().filter_map(|line| {
            let time = line.strip_prefix('[')?.split_once(']')?.0.parse().ok()?;
            let number = line.split_once("icmp_seq=")?.1.split(' ').next()?;
            line.contains("time=")
                .then_some((number.parse().ok()?, time))
        });
        Ok(answers.collect())
    }
}

impl Loss {
    fn of(
        answers: &[(u32, f64)],
        time: impl Fn((&(u32, f64), &(u32, f64))) -> f64,
    ) -> Result<Self> {
        let numbers: std::collections::BTreeSet<u32> =
            answers.iter().map(|(number, _)| *number).collect();
        let (first, last) = (numbers.first(), numbers.last());
        let (first, last) = first.zip(last).context("no answer")?;
        let sent = usize::try_from(last - first)? + 1;
        let pairs = answers.windows(2).map(|pair| time((&pair[0], &pair[1])));
        Ok(Self {
            sent,
            lost: sent - numbers.len(),
            longest: Duration::from_secs_f64(pairs.fold(0.0, f64::max)),
        })
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            sent,
            lost,
            longest,
        } = self;
        write!(f, "{lost} of {sent} lost, {longest:.2?} without an answer")
    }
}
