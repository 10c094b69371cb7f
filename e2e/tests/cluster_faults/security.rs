//! What those may not do who are not cni-controller.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use e2e::{run, until};
use serde_json::json;

use crate::world::{START, SYSTEM, World};

/// Service accounts may what they need, and the container that runs cni-node has no token at all.
pub(crate) fn least_rights(world: &World<'_>) -> Result<String> {
    let user = |name: &str| format!("--as=system:serviceaccount:{SYSTEM}:{name}");
    let may = |who: &str, what: &[&str]| {
        // "no" is exit code 1, with that word.
        let user = user(who);
        let argv = [&["auth", "can-i"], what, &[user.as_str()]].concat();
        world
            .lab
            .kubectl(&argv)
            .is_ok_and(|said| said.ends_with("yes"))
    };
    let requests = "certificatesigningrequests.certificates.k8s.io";
    ensure!(
        may("cni-node", &["create", requests]),
        "cni-node cannot ask for its certificate"
    );
    for what in [
        &["list", "pods", "-A"][..],
        &["get", "secrets", "-n", SYSTEM],
        &["get", "configmaps", "-n", SYSTEM],
        &["patch", "nodes"],
        &["update", requests, "--subresource=approval"],
        &["approve", "signers.certificates.k8s.io/iaas.yusur.io/node"],
        &["get", "subnets.iaas.yusur.io"],
        &["create", "events.events.k8s.io", "-A"],
    ] {
        ensure!(!may("cni-node", what), "cni-node may {what:?}");
    }
    ensure!(
        may("cni-controller", &["list", "pods", "-A"]),
        "cni-controller cannot list pods"
    );
    for what in [
        &["get", "secrets", "-A"][..],
        &["create", "pods", "-A"],
        &["patch", "pods", "-A"],
        &["delete", "pods", "-A"],
        &["update", "nodes"],
        &["delete", "nodes"],
        &["delete", "subnets.iaas.yusur.io"],
        &[
            "approve",
            "signers.certificates.k8s.io/kubernetes.io/kube-apiserver-client",
        ],
        &["create", "pods/exec", "-A"],
        &["update", "leases.coordination.k8s.io", "-n", "kube-system"],
    ] {
        ensure!(!may("cni-controller", what), "cni-controller may {what:?}");
    }
    // It writes two things of a host's Node; the admission policy refuses all others.
    let controller = user("cni-controller");
    let said = world
        .lab
        .kubectl(&["label", "node", "n2", "example.com/mine=1", &controller])
        .err()
        .map(|why| format!("{why:#}"))
        .unwrap_or_default();
    ensure!(
        said.contains("cni-controller writes the annotation"),
        "cni-controller labels a Node: {said}"
    );
    let pod = world.system_pod("cni-node", "n2")?;
    let secrets = |container: &str| -> Result<bool> {
        let pid = world.container_pid(SYSTEM, &pod, container)?;
        Ok(fs::exists(format!(
            "/proc/{pid}/root/var/run/secrets/kubernetes.io/serviceaccount/token"
        ))?)
    };
    ensure!(
        secrets("identity")?,
        "the identity container has no token: the case shows nothing"
    );
    ensure!(
        !secrets("cni-node")?,
        "the container of cni-node has a token"
    );
    Ok("cni-node: certificate requests only, and no token in its container".into())
}

/// Nobody but cni-controller writes keys of ours on pods.
pub(crate) fn admission(world: &World<'_>) -> Result<String> {
    world.start(&[("plain", "n1")])?;
    let refused = |argv: &[&str]| -> Result<()> {
        let said = world
            .lab
            .kubectl(argv)
            .err()
            .map(|error| format!("{error:#}"));
        let said = said.with_context(|| format!("{argv:?} was not refused"))?;
        ensure!(
            said.contains("outboard-pod-keys") && said.contains("Outboard's"),
            "refused for another reason: {said}"
        );
        Ok(())
    };
    let ns = world.ns.as_str();
    refused(&[
        "annotate",
        "pod",
        "-n",
        ns,
        "plain",
        "iaas.yusur.io/allocated=10.244.0.77",
    ])?;
    refused(&[
        "annotate",
        "pod",
        "-n",
        ns,
        "plain",
        "iaas.yusur.io/ips=10.244.0.77",
    ])?;
    refused(&["label", "pod", "-n", ns, "plain", "iaas.yusur.io/role=node"])?;
    world
        .lab
        .kubectl(&["annotate", "pod", "-n", ns, "plain", "example.org/mine=1"])?;

    let with = |name: &str, notes: &str| {
        world
            .pod(name, "n1")
            .replace("labels:", &format!("annotations: {notes}, labels:"))
    };
    let said = world
        .lab
        .apply(&with("forged", "{iaas.yusur.io/allocated: x}"))
        .err()
        .map(|e| format!("{e:#}"));
    ensure!(
        said.as_ref()
            .is_some_and(|said| said.contains("Outboard's")),
        "a forged key at creation: {said:?}"
    );
    // A request is everybody's right, and is granted when the address is free.
    world
        .lab
        .apply(&with("asks", "{iaas.yusur.io/ips: 10.244.77.77}"))?;
    world.lab.wait_ready(ns, "asks", START)?;
    let asks = e2e::pods::one(world.lab, ns, "asks")?;
    ensure!(
        asks.ips.first().is_some_and(|ip| ip == "10.244.77.77"),
        "asked for 10.244.77.77, has {:?}",
        asks.ips
    );
    Ok("three changes and a creation refused, a request granted".into())
}

/// Certificate requests that are not a node's own are denied, with a sentence.
pub(crate) fn forged_request(world: &World<'_>) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let desk = Desk {
        world,
        dir: dir.path().to_owned(),
    };
    let (on_n1, on_n2) = (
        world.system_pod("cni-node", "n1")?,
        world.system_pod("cni-node", "n2")?,
    );
    let bound = desk.token(&[
        "--bound-object-kind=Pod",
        &format!("--bound-object-name={on_n2}"),
    ])?;
    let unbound = desk.token(&[])?;

    let said = desk.ask("other-node", Some(&bound), "n1")?;
    ensure!(
        said.starts_with("Denied OtherNode") && said.contains("n1") && said.contains("n2"),
        "{said}"
    );
    let unbound = desk.ask("unbound-token", Some(&unbound), "n1")?;
    ensure!(unbound.starts_with("Denied TokenNotBound"), "{unbound}");
    let poster = desk.ask("administrator", None, "n1")?;
    ensure!(poster.starts_with("Denied WrongPoster"), "{poster}");
    let own = desk.ask("own-node", Some(&bound), "n2")?;
    ensure!(own.starts_with("Approved"), "the node's own request: {own}");

    // And a kubelet cannot come by a token of another node's pod.
    let kubelet = format!(
        "--kubeconfig={}",
        world
            .lab
            .node("n2")
            .dir()
            .join("kubelet.kubeconfig")
            .display()
    );
    let object = format!("--bound-object-name={on_n1}");
    let argv = [
        &kubelet,
        "create",
        "token",
        "cni-node",
        "-n",
        SYSTEM,
        "--bound-object-kind=Pod",
        &object,
    ];
    let refused = world
        .lab
        .kubectl(&argv)
        .err()
        .map(|error| format!("{error:#}"));
    ensure!(
        refused
            .as_ref()
            .is_some_and(|said| said.to_lowercase().contains("forbidden")),
        "a token of n1's pod for n2's kubelet: {refused:?}"
    );
    Ok(said)
}

/// Where requests are made out and handed in.
struct Desk<'a> {
    world: &'a World<'a>,
    dir: PathBuf,
}

impl Desk<'_> {
    /// A token of cni-node's service account.
    fn token(&self, options: &[&str]) -> Result<String> {
        self.world.lab.kubectl(
            &[
                &[
                    "create",
                    "token",
                    "cni-node",
                    "-n",
                    SYSTEM,
                    "--duration=10m",
                ],
                options,
            ]
            .concat(),
        )
    }

    /// Hands a request in with a token (none: as administrator); the conditions it gets: type, reason, sentence.
    fn ask(&self, name: &str, token: Option<&str>, node: &str) -> Result<String> {
        let lab = self.world.lab;
        let name = format!("{}-{name}", self.world.ns);
        let file = |end: &str| self.dir.join(format!("{name}.{end}")).display().to_string();
        let (key, request, manifest) = (file("key"), file("csr"), file("json"));
        run(&[
            "openssl",
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            &key,
            "-out",
            &request,
            "-subj",
            &format!("/O=outboard:chassis/CN={node}"),
        ])?;
        let text = run(&["base64", "-w0", &request])?;
        let object = json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"signerName": "iaas.yusur.io/node", "usages": ["digital signature", "client auth"], "request": text},
        });
        fs::write(&manifest, object.to_string())?;
        let mut argv = vec![
            "create".to_owned(),
            "--validate=false".into(),
            "-f".into(),
            manifest,
        ];
        if let Some(token) = token {
            argv.insert(
                0,
                format!("--kubeconfig={}", self.kubeconfig(&name, token)?),
            );
        }
        lab.kubectl(&argv)?;
        let words = "jsonpath={range .status.conditions[*]}{.type} {.reason}: {.message}{end}";
        let said = until(&format!("an answer to {name}"), START, || {
            let said = lab.kubectl(&["get", "csr", &name, "-o", words])?;
            Ok((!said.is_empty()).then_some(said))
        })?;
        let certificate =
            || lab.kubectl(&["get", "csr", &name, "-o", "jsonpath={.status.certificate}"]);
        if said.starts_with("Approved") {
            until(&format!("the certificate of {name}"), START, || {
                Ok((!certificate()?.is_empty()).then_some(()))
            })?;
        } else {
            ensure!(
                certificate()?.is_empty(),
                "{name} was denied and has a certificate"
            );
        }
        lab.kubectl(&["delete", "csr", &name])?;
        Ok(said)
    }

    /// A kubeconfig that shows the token and no certificate.
    fn kubeconfig(&self, name: &str, token: &str) -> Result<String> {
        let lab = self.world.lab;
        let path = "jsonpath={.clusters[0].cluster.certificate-authority}";
        let ca = lab.kubectl(&["config", "view", "--raw", "-o", path])?;
        let file = self.dir.join(format!("{name}.kubeconfig"));
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": lab.api_server(), "certificate-authority": ca}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(&file, text.to_string())?;
        Ok(file.display().to_string())
    }
}
