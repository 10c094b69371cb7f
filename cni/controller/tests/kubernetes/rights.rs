//! What the accounts of hosts and DPUs may do further than their roles say, with tokens that are bound to pods: by the admission
//! policies of `manifests/base/admission-dpu.yaml`. And what of Nodes is nobody's but cni-controller's.

use crate::apiserver::ApiServer;
use crate::site::{SYSTEM, client, fresh, site};
use api::Dpu;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

const TRY: &str = "--dry-run=server";

struct World<'a> {
    server: &'a ApiServer,
    /// A DPU, its host, and another DPU.
    d1: String,
    h1: String,
    d2: String,
}

/// A token as kubelet projects it into the account's pod on the node.
fn token(server: &ApiServer, account: &str, node: &str) -> String {
    let name = fresh(account);
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": SYSTEM},
        "spec": {"nodeName": node, "serviceAccountName": account, "containers": [{"name": "a", "image": "b"}]}});
    let admin = |line: &str, input: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.kubectl("admin", &words, input).unwrap()
    };
    let uid = admin("create -f - -o jsonpath={.metadata.uid}", &pod.to_string());
    let bound =
        format!("--bound-object-kind=Pod --bound-object-name={name} --bound-object-uid={uid}");
    let made = admin(&format!("create token {account} -n {SYSTEM} {bound}"), "");
    made.trim().to_owned()
}

/// The same account's token that is bound to nothing.
fn loose(server: &ApiServer, account: &str) -> String {
    let arguments = ["create", "token", account, "-n", SYSTEM];
    let made = server.kubectl("admin", &arguments, "").unwrap();
    made.trim().to_owned()
}

fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T, String>, sentence: &str) {
    let error = answer.expect_err(what);
    assert!(error.contains(sentence), "{what}: {error}");
}

impl World<'_> {
    fn dpu(&self, name: &str, dpu: &str, host: &str) -> String {
        let object = json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "metadata": {"name": name},
            "spec": {"dpuNode": dpu, "hostNode": host, "address": "198.18.0.12"}});
        let create = ["create", "-f", "-", "-o", "jsonpath={.metadata.uid}"];
        let made = self.server.kubectl("admin", &create, &object.to_string());
        made.unwrap()
    }

    /// Applies a status as its manager would.
    fn says(&self, token: &str, dpu: &str, status: &Value) -> Result<String, String> {
        let object = json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "metadata": {"name": dpu}, "status": status});
        let apply = [
            "apply",
            "--server-side",
            "--subresource=status",
            "--field-manager=cni-node-dpu",
            "--force-conflicts",
            "-f",
            "-",
        ];
        self.server.kubectl(token, &apply, &object.to_string())
    }

    /// As a program would; kubectl reads the subresource first.
    fn merges(&self, token: &str, dpu: &str, patch: &Value) -> Result<(), String> {
        let url = self.server.url();
        let patched = async {
            let dpus: Api<Dpu> = Api::all(client(&url, token));
            let patch = Patch::Merge(patch);
            let params = PatchParams::default();
            dpus.patch_status(dpu, &params, &patch).await
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let patched = runtime.block_on(patched);
        patched.map(drop).map_err(|error| error.to_string())
    }

    fn patches(&self, token: &str, line: &str, patch: &Value) -> Result<String, String> {
        let patch = patch.to_string();
        let mut words: Vec<&str> = vec!["patch"];
        words.extend(line.split(' '));
        words.extend(["-p", &patch]);
        self.server.kubectl(token, &words, "")
    }

    /// Whose Dpu is whose, as cni-controller does it.
    fn writes_down(&self, node: &str, dpu: Option<(&str, &str)>) {
        let entry = dpu.map(|(name, uid)| format!("{name}/{uid}"));
        let patch = json!({"data": {node: entry}}).to_string();
        let line = [
            "patch",
            "configmap",
            "outboard-dpus",
            "-n",
            SYSTEM,
            "--type=merge",
            "-p",
            &patch,
        ];
        self.server.kubectl("admin", &line, "").unwrap();
    }

    fn event(&self, token: &str, change: impl Fn(&mut Value)) -> Result<String, String> {
        let mut object = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"generateName": "dpu-", "namespace": "default"},
            "type": "Warning", "reason": "Refused", "action": "Serve", "note": "a sentence",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "reportingController": "iaas.yusur.io/cni-node", "reportingInstance": self.d1});
        change(&mut object);
        let create = ["create", "-f", "-"];
        self.server.kubectl(token, &create, &object.to_string())
    }
}

fn condition(type_: &str, status: &str) -> Value {
    json!({"type": type_, "status": status, "reason": "Test", "message": "a sentence",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

#[test]
fn a_node_may_do_what_is_its_own_and_nothing_else() {
    let site = site();
    let server = &site.server;
    let world = World {
        server,
        d1: fresh("d"),
        h1: fresh("h"),
        d2: fresh("d"),
    };
    for node in [&world.d1, &world.h1, &world.d2] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
        let create = ["create", "-f", "-"];
        server.kubectl("admin", &create, &node.to_string()).unwrap();
    }
    let (own, other) = (fresh("pair"), fresh("pair"));
    let own_uid = world.dpu(&own, &world.d1, &world.h1);
    let other_uid = world.dpu(&other, &world.d2, &fresh("h"));
    world.writes_down(&world.d1, Some((&own, &own_uid)));
    world.writes_down(&world.d2, Some((&other, &other_uid)));
    let dpu = token(server, "cni-node-dpu", &world.d1);
    // The policies are compiled a moment after they are stored, and objects become parameters a moment after they are made.
    let about = |name: &str, uid: &str| {
        let regarding =
            json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "name": name, "uid": uid});
        move |event: &mut Value| event["regarding"] = regarding.clone()
    };
    server.eventually("the admission policies to work", |_| {
        let status = json!({"conditions": [condition("Ready", "True")]});
        let wrong = world.event(&dpu, about(&other, &other_uid));
        let request = request(server, &dpu, "kubernetes.io/kube-apiserver-client");
        world.says(&dpu, &own, &status).is_err() && wrong.is_err() && request.is_err()
    });
    statuses(&world, &dpu, (&own, &other));
    let events = (
        own.as_str(),
        own_uid.as_str(),
        other.as_str(),
        other_uid.as_str(),
    );
    events_are_about_its_own(&world, &dpu, events);
    certificate_requests(&world, &dpu);
    nodes(&world);
    for name in [&own, &other] {
        server
            .kubectl("admin", &["delete", "dpu", name], "")
            .unwrap();
    }
    // It has none any more.
    world.writes_down(&world.d1, None);
    server.eventually("the former Dpu to be nobody's", |_| {
        let answer = world.event(&dpu, about(&own, &own_uid));
        answer.is_err_and(|why| why.contains("by its name and uid"))
    });
}

fn statuses(world: &World<'_>, dpu: &str, (own, other): (&str, &str)) {
    let server = world.server;
    let status = json!({"lastHeartbeat": "2026-01-01T00:00:00Z", "functions": {"total": 8, "free": 7},
        "dpuEpoch": "a/1", "hostEpoch": "b/1", "conditions": [condition("HostSeen", "True")]});
    world.says(dpu, own, &status).unwrap();
    // cni-controller's conditions come beside it, and stay when the DPU speaks again.
    let ours = json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "metadata": {"name": own},
        "status": {"conditions": [condition("Paired", "True"), condition("Ready", "True")]}});
    let apply = [
        "apply",
        "--server-side",
        "--subresource=status",
        "--field-manager=cni-controller",
        "-f",
        "-",
    ];
    server
        .kubectl("controller", &apply, &ours.to_string())
        .unwrap();
    let again = json!({"lastHeartbeat": "2026-01-01T00:00:10Z", "conditions": [condition("HostSeen", "False")]});
    world.says(dpu, own, &again).unwrap();
    let types = "jsonpath={.status.conditions[*].type} {.status.lastHeartbeat} {.status.functions}";
    let shown = server.kubectl("admin", &["get", "dpu", own, "-o", types], "");
    let shown = shown.unwrap();
    for word in ["HostSeen", "Paired", "Ready", "00:00:10"] {
        assert!(shown.contains(word), "{shown}");
    }
    assert!(
        !shown.contains("total"),
        "what it says no more is gone: {shown}"
    );

    let foreign = "its token is bound to, and of no other";
    refused("another's", world.says(dpu, other, &again), foreign);
    let ready = json!({"conditions": [condition("HostSeen", "True"), condition("Ready", "False")]});
    refused("Ready", world.says(dpu, own, &ready), "only HostSeen");
    let merge = |status: Value| world.merges(dpu, own, &json!({"status": status}));
    let none = json!({"conditions": null});
    refused("all conditions away", merge(none), "only HostSeen");
    let one = json!({"conditions": [condition("HostSeen", "True")]});
    refused("ours away", merge(one), "only HostSeen");
    let spec = json!({"spec": {"hostNode": "h9"}});
    let line = format!("dpu {own} --type=merge");
    refused("its spec", world.patches(dpu, &line, &spec), "forbidden");
    let delete = ["delete", "dpu", own];
    refused("itself", server.kubectl(dpu, &delete, ""), "forbidden");
    // Nobody knows on which node this token is.
    let loose = loose(server, "cni-node-dpu");
    refused("unbound", world.says(&loose, own, &again), foreign);
    // A DPU's spec does not change by its status.
    let both = json!({"spec": {"hostNode": "h9"}, "status": {"dpuEpoch": "c"}});
    world.merges(dpu, own, &both).unwrap();
    let host = ["get", "dpu", own, "-o", "jsonpath={.spec.hostNode}"];
    assert_eq!(server.kubectl("admin", &host, "").unwrap(), world.h1);
    let host = token(server, "cni-node-host", &world.h1);
    refused("a host", world.says(&host, own, &again), "forbidden");
}

fn events_are_about_its_own(
    world: &World<'_>,
    dpu: &str,
    (own, own_uid, other, other_uid): (&str, &str, &str, &str),
) {
    let regarding = |name: &str, uid: &str| json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "name": name, "uid": uid});
    let mine = regarding(own, own_uid);
    let with = |regarding: &Value| {
        let regarding = regarding.clone();
        move |event: &mut Value| event["regarding"] = regarding.clone()
    };
    world.event(dpu, with(&mine)).unwrap();
    for (what, regarding) in [
        ("another's", regarding(other, other_uid)),
        ("another's name", regarding(other, own_uid)),
        ("another's uid", regarding(own, other_uid)),
        ("a uid of nobody", regarding(own, "x")),
        ("nobody's name", regarding("nobody", own_uid)),
        ("a Dpu that there is not", regarding("nobody", "y")),
    ] {
        let answer = world.event(dpu, with(&regarding));
        refused(what, answer, "by its name and uid");
    }
    for (what, regarding) in [
        ("nothing", json!({})),
        (
            "a Pod",
            json!({"apiVersion": "v1", "kind": "Pod", "name": own, "uid": own_uid, "namespace": "default"}),
        ),
        (
            "a Node",
            json!({"apiVersion": "v1", "kind": "Node", "name": world.d1, "uid": own_uid}),
        ),
        (
            "no uid",
            json!({"apiVersion": "iaas.yusur.io/v1", "kind": "Dpu", "name": own}),
        ),
    ] {
        assert!(world.event(dpu, with(&regarding)).is_err(), "{what}");
    }
    let also = |event: &mut Value| {
        event["regarding"] = mine.clone();
        event["related"] = json!({"apiVersion": "v1", "kind": "Node", "name": "n1"});
    };
    refused(
        "somebody else too",
        world.event(dpu, also),
        "and about nothing else",
    );
    for (key, value) in [
        ("reportingInstance", world.d2.as_str()),
        ("reportingController", "kubelet"),
    ] {
        let change = |event: &mut Value| {
            event["regarding"] = mine.clone();
            event[key] = json!(value);
        };
        refused(key, world.event(dpu, change), "reportingInstance");
    }
    let elsewhere = |event: &mut Value| {
        event["regarding"] = mine.clone();
        event["metadata"]["namespace"] = json!(SYSTEM);
    };
    assert!(world.event(dpu, elsewhere).is_err(), "another namespace");
    let loose = loose(world.server, "cni-node-dpu");
    refused(
        "unbound",
        world.event(&loose, with(&mine)),
        "its token is bound to",
    );
    let host = token(world.server, "cni-node-host", &world.h1);
    refused("a host", world.event(&host, with(&mine)), "forbidden");
    // Others are not concerned.
    let controller = world.event("controller", with(&regarding(other, other_uid)));
    controller.unwrap();
}

/// Whether the account may post a request to the signer. Nothing is stored.
fn request(server: &ApiServer, token: &str, signer: &str) -> Result<String, String> {
    use base64::Engine as _;
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap();
    let object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"generateName": "rights-"},
        "spec": {"signerName": signer, "usages": ["digital signature", "client auth"],
            "request": base64::engine::general_purpose::STANDARD.encode(pem)}});
    server.kubectl(token, &["create", TRY, "-f", "-"], &object.to_string())
}

fn certificate_requests(world: &World<'_>, dpu: &str) {
    let host = token(world.server, "cni-node-host", &world.h1);
    let plain = token(world.server, "cni-node", "n1");
    let signers = [
        "iaas.yusur.io/node",
        "iaas.yusur.io/channel",
        "iaas.yusur.io/storage-node",
        "kubernetes.io/kube-apiserver-client",
        "kubernetes.io/kubelet-serving",
    ];
    for (account, token, may) in [
        ("cni-node", plain.as_str(), &signers[..1]),
        ("cni-node-host", &host, &signers[1..2]),
        ("cni-node-dpu", dpu, &signers[..2]),
    ] {
        for signer in signers {
            let answer = request(world.server, token, signer);
            if may.contains(&signer) {
                answer.unwrap();
            } else {
                refused(
                    &format!("{account} {signer}"),
                    answer,
                    "this account may not",
                );
            }
        }
    }
}

/// As a kubelet would, whose name and groups its certificate says.
fn nodes(world: &World<'_>) {
    let server = world.server;
    let node = &world.h1;
    let rights = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "rights-kubelet"},
            "rules": [{"apiGroups": [""], "resources": ["nodes", "nodes/status"], "verbs": ["create", "get", "patch", "update"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "rights-kubelet"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "rights-kubelet"},
            "subjects": [{"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}]}]});
    let apply = ["apply", "-f", "-"];
    server
        .kubectl("admin", &apply, &rights.to_string())
        .unwrap();
    let user = format!("--as=system:node:{node}");
    let kubelet = |line: &str, patch: &Value| {
        let line = format!("{line} {user} --as-group=system:nodes --as-group=system:authenticated");
        world.patches("admin", &line, patch)
    };
    let chassis = json!({"metadata": {"annotations": {"iaas.yusur.io/chassis": "d9"}}});
    let mode = json!({"metadata": {"labels": {"iaas.yusur.io/mode": "dpu"}}});
    let line = format!("node {node} --type=merge");
    let status = format!("node {node} --subresource=status --type=merge");
    server.eventually("the policy of Nodes to work", |_| {
        kubelet(&format!("{line} {TRY}"), &chassis).is_err()
    });
    for line in [&line, &status] {
        refused(
            "the memory",
            kubelet(line, &chassis),
            "cni-controller's memory",
        );
        refused("the mode", kubelet(line, &mode), "set when it joins");
    }
    let usual = json!({"metadata": {"annotations": {"a": "b"}, "labels": {"c": "d"}}});
    kubelet(&line, &usual).unwrap();
    let addresses =
        json!({"status": {"addresses": [{"type": "InternalIP", "address": "198.18.0.1"}]}});
    kubelet(&status, &addresses).unwrap();

    let ours = |patch: &Value| world.patches("controller", &line, patch);
    ours(&chassis).unwrap();
    kubelet(&line, &json!({"metadata": {"annotations": {"a": "c"}}})).unwrap();
    let away = json!({"metadata": {"annotations": {"iaas.yusur.io/chassis": null}}});
    refused(
        "its removal",
        kubelet(&line, &away),
        "cni-controller's memory",
    );
    ours(&away).unwrap();
    for (what, patch) in [
        ("a label", json!({"metadata": {"labels": {"x": "y"}}})),
        (
            "another annotation",
            json!({"metadata": {"annotations": {"x": "y"}}}),
        ),
        (
            "another's annotation away",
            json!({"metadata": {"annotations": {"a": null}}}),
        ),
        (
            "a taint",
            json!({"spec": {"taints": [{"key": "x", "effect": "NoSchedule"}]}}),
        ),
        ("unschedulable", json!({"spec": {"unschedulable": true}})),
    ] {
        refused(what, ours(&patch), "cni-controller writes the annotation");
    }
    // An administrator says what a node is.
    world.patches("admin", &line, &mode).unwrap();
}
