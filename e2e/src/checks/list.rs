//! The list of checks: who asks whom, and what the answer must be.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::reach::{Answer, From, url};
use super::{Check, NAMESPACE, Scene, Seen};
use crate::delegate::Delegate;
use crate::pods::Family::{self, V4, V6};

const CLIENT: From<'static> = From::Pod("client");
const HOST_POD: From<'static> = From::Pod("host");
const N1: From<'static> = From::Node("n1");
const N2: From<'static> = From::Node("n2");
/// So many connections find both of two endpoints but for one time in 30,000.
const OFTEN: u8 = 16;
const API_VIP: &str = "https://10.96.0.1/version";
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// All checks, in the order of the table.
pub fn all() -> Vec<Check> {
    let check = |what, from, to, probe| Check {
        what,
        from,
        to,
        probe,
    };
    vec![
        check("pod → pod, same node", "client (n1)", "web (n1)", |s| {
            s.web_answers(CLIENT, "n1", V4)
        }),
        check(
            "pod → pod, across nodes",
            "client (n1)",
            "web (n2)",
            |s| s.web_answers(CLIENT, "n2", V4),
        ),
        check(
            "pod → pod, 1 MiB across nodes",
            "client (n1)",
            "web (n2)",
            |s| s.a_mebibyte(V4),
        ),
        check("pod → Service", "client (n1)", "web, ClusterIP", |s| {
            s.both_answer(CLIENT, V4)
        }),
        check(
            "pod → its own Service",
            "web (n1)",
            "web, ClusterIP",
            |s| s.hairpin(V4),
        ),
        check("node → pod, same node", "host n1", "web (n1)", |s| {
            s.web_answers(N1, "n1", V4)
        }),
        check("node → pod, across nodes", "host n1", "web (n2)", |s| {
            s.web_answers(N1, "n2", V4)
        }),
        check("pod → outside", "client (n1)", "outside host", |s| {
            s.outside(V4)
        }),
        check(
            "pod → API server, with its token",
            "client (n1)",
            "kubernetes, ClusterIP",
            |s| s.api(CLIENT),
        ),
        check(
            "DNS name → Service",
            "client (n1)",
            "web.demo.svc.cluster.local",
            |s| s.name_answers(CLIENT, "web.demo.svc.cluster.local"),
        ),
        check("host → Service", "host n2", "web, ClusterIP", |s| {
            s.both_answer(N2, V4)
        }),
        check(
            "hostNetwork pod → Service by name",
            "host (n2)",
            "web",
            |s| s.name_answers(HOST_POD, "web"),
        ),
        check(
            "hostNetwork pod → API server",
            "host (n2)",
            "kubernetes, ClusterIP",
            |s| s.api(HOST_POD),
        ),
        check(
            "IPv6 pod → pod, same node",
            "client (n1)",
            "web (n1)",
            |s| s.web_answers(CLIENT, "n1", V6),
        ),
        check(
            "IPv6 pod → pod, across nodes",
            "client (n1)",
            "web (n2)",
            |s| s.web_answers(CLIENT, "n2", V6),
        ),
        check(
            "IPv6 pod → pod, 1 MiB across nodes",
            "client (n1)",
            "web (n2)",
            |s| s.a_mebibyte(V6),
        ),
        check(
            "IPv6 pod → Service",
            "client (n1)",
            "web, ClusterIP",
            |s| s.both_answer(CLIENT, V6),
        ),
        check(
            "IPv6 node → pod, across nodes",
            "host n1",
            "web (n2)",
            |s| s.web_answers(N1, "n2", V6),
        ),
        check("IPv6 host → Service", "host n2", "web, ClusterIP", |s| {
            s.both_answer(N2, V6)
        }),
        check("IPv6 pod → outside", "client (n1)", "outside host", |s| {
            s.outside(V6)
        }),
        check(
            "second NIC from a NAD (plugin called as Multus does)",
            "client net1 (n1)",
            "peer net1 (n2)",
            second_nic,
        ),
    ]
}

impl Scene<'_> {
    fn web_answers(&self, from: From<'_>, node: &str, family: Family) -> Result<Seen> {
        let web = self.web(node)?;
        let answer = self.fetch(from, &url(web.ip(family)?), &[])?;
        expect(&answer, &web.name)?;
        Ok(Seen::new(
            format!("{} from {}", answer.body, web.ip(family)?),
            answer.ms,
        ))
    }

    fn a_mebibyte(&self, family: Family) -> Result<Seen> {
        let address = url(self.web("n2")?.ip(family)?);
        let answer = self.fetch(
            CLIENT,
            &format!("{address}big"),
            &[
                "-o",
                "/dev/null",
                "-w",
                "%{size_download}##time=%{time_total}",
            ],
        )?;
        expect(&answer, "1048576")?;
        Ok(Seen::new(format!("{} bytes", answer.body), answer.ms))
    }

    fn both_answer(&self, from: From<'_>, family: Family) -> Result<Seen> {
        let service = self.service(family);
        let answers = self.fetch_often(from, &url(service), OFTEN)?;
        let who: BTreeSet<&str> = answers.iter().map(|answer| answer.body.as_str()).collect();
        let wanted = BTreeSet::from([self.web("n1")?.name.as_str(), &self.web("n2")?.name]);
        ensure!(
            who == wanted,
            "{OFTEN} requests to {service} were answered by {who:?}, not by both of {wanted:?}"
        );
        Ok(Seen::new(
            format!("both endpoints of {service}"),
            mean(&answers),
        ))
    }

    fn hairpin(&self, family: Family) -> Result<Seen> {
        let (web, service) = (&self.web("n1")?.name, self.service(family));
        let answers = self.fetch_often(From::Pod(web), &url(service), OFTEN)?;
        let own: Vec<_> = answers
            .iter()
            .filter(|answer| answer.body == *web)
            .cloned()
            .collect();
        ensure!(
            !own.is_empty(),
            "none of {OFTEN} requests of pod {web} to {service} came back to itself: {answers:?}"
        );
        Ok(Seen::new(
            format!("{} of {OFTEN} answered by itself", own.len()),
            mean(&own),
        ))
    }

    fn name_answers(&self, from: From<'_>, name: &str) -> Result<Seen> {
        let answer = self.fetch(from, &url(name), &["-4"])?;
        ensure!(
            answer.body.starts_with("web-"),
            "http://{name}/ answered {:?}",
            answer.body
        );
        Ok(Seen::new(answer.body, answer.ms))
    }

    /// The outside host knows no route to pods: an answer proves that the request came under a node's address.
    fn outside(&self, family: Family) -> Result<Seen> {
        let (v4, v6) = self.lab.site.outside();
        let address = if family == V6 { v6 } else { v4 };
        let answer = self.fetch(CLIENT, &url(&address), &[])?;
        expect(&answer, "outside")?;
        Ok(Seen::new(
            format!("{} from {address}", answer.body),
            answer.ms,
        ))
    }

    /// The API server's certificate is verified, and it answers only to whom it knows.
    fn api(&self, from: From<'_>) -> Result<Seen> {
        let format = "##time=%{time_total}";
        let script = format!(
            "curl -sS --fail -m 5 -w '{format}' --cacert {ACCOUNT}/ca.crt -H \"Authorization: Bearer $(cat {ACCOUNT}/token)\" {API_VIP}"
        );
        let printed = self.ask(from, &["sh", "-ec", &script])?;
        let answer = super::reach::answer(&printed)?;
        let version: Value = serde_json::from_str(&answer.body)
            .with_context(|| format!("{API_VIP} answered {printed}"))?;
        let version = version["gitVersion"]
            .as_str()
            .with_context(|| format!("{API_VIP} answered {printed}"))?;
        Ok(Seen::new(version, answer.ms))
    }
}

/// What Multus would do at the start of both pods; then the one's second interface asks the other's. DEL at the end, as
/// Multus would at the pods' end (and at the start: a check may be run again).
fn second_nic(scene: &Scene<'_>) -> Result<Seen> {
    let delegate = |pod| Delegate::new(scene.lab, NAMESPACE, pod, "net1", "storage");
    let (client, peer) = (delegate("client")?, delegate("peer")?);
    client.del(None)?;
    peer.del(None)?;
    let (ours, theirs) = (
        client.add().context("ADD of client's net1")?,
        peer.add().context("ADD of peer's net1")?,
    );
    let mut ms = 0.0;
    let addresses = addresses(&theirs);
    ensure!(
        addresses.len() == 2,
        "ADD gave not one IPv4 and one IPv6 address: {theirs}"
    );
    for address in &addresses {
        let answer = scene.fetch(CLIENT, &url(address), &["--interface", "net1"])?;
        expect(&answer, "peer")?;
        ms += answer.ms / 2.0;
    }
    client.del(Some(&ours))?;
    peer.del(Some(&theirs))?;
    let gone = scene.ask(CLIENT, &["ip", "-o", "link"])?;
    ensure!(
        !gone.contains("net1"),
        "net1 is still there after DEL: {gone}"
    );
    Ok(Seen::new(
        format!("peer from {}", addresses.join(" and ")),
        ms,
    ))
}

/// The addresses of a CNI result, without prefix.
fn addresses(result: &Value) -> Vec<String> {
    let ips = result["ips"].as_array().into_iter().flatten();
    ips.filter_map(|ip| Some(ip["address"].as_str()?.split('/').next()?.to_owned()))
        .collect()
}

fn expect(answer: &Answer, wanted: &str) -> Result<()> {
    ensure!(
        answer.body == wanted,
        "the answer was {:?}, not {wanted:?}",
        answer.body
    );
    Ok(())
}

fn mean(answers: &[Answer]) -> f64 {
    let count = u32::try_from(answers.len()).unwrap_or(u32::MAX).max(1);
    answers.iter().map(|answer| answer.ms).sum::<f64>() / f64::from(count)
}
