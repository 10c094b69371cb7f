//! `manifests/kubevirt/default-binding.yaml`: a machine with `vhostuser: {}`, on KubeVirt's kinds as they are. The real kube-apiserver; the
//! kinds have as much of KubeVirt's schemas as the test needs.

use crate::apiserver::ApiServer;
use crate::{manifests, refused};
use serde_json::{Value, json};

/// As it is found in articles about KubeVirt with DPDK.
const LITERAL: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachineInstance
metadata:
  name: vm-trex-1
spec:
  domain:
    devices:
      interfaces:
      - name: default
        masquerade: {}
      - name: vhost-user-net-1
        vhostuser: {}
  networks:
  - name: default
    pod: {}
  - name: vhost-user-net-1
    multus:
      networkName: userspace-ovs-net-1
";
const KINDS: &str = include_str!("../../../../e2e/manifests/kubevirt.yaml");
const NETWORKS: &str =
    include_str!("../../../../e2e/manifests/network-attachment-definitions.yaml");

#[test]
fn an_interface_without_a_binding_gets_that_of_its_network() {
    let server = ApiServer::with(&[
        "--feature-gates=MutatingAdmissionPolicy=true",
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true",
    ]);
    let apply = |text: &str| {
        server
            .kubectl("admin", &["apply", "-f", "-"], text)
            .unwrap()
    };
    apply(KINDS);
    apply(NETWORKS);
    let kinds = [
        "virtualmachines.kubevirt.io",
        "virtualmachineinstances.kubevirt.io",
        "network-attachment-definitions.k8s.cni.cncf.io",
    ];
    for kind in kinds {
        let kind = format!("crd/{kind}");
        let wait = [
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            &kind,
        ];
        server.kubectl("admin", &wait, "").unwrap();
    }
    narrow(&server);

    server.eventually("the field to be taken off", |server| {
        let kept = created(server, LITERAL).unwrap();
        interfaces(&kept)[1] == json!({"name": "vhost-user-net-1"})
    });
    let strict = ["create", "--dry-run=server", "-f", "-"];
    refused(
        "kubectl as it comes",
        server.kubectl("admin", &strict, LITERAL),
        "unknown field \"spec.domain.devices.interfaces[1].vhostuser\"",
    );

    for (name, config) in [
        (
            "userspace-ovs-net-1",
            r#"{"type": "outboard", "subnet": "a", "kind": "vhostuser"}"#,
        ),
        (
            "several",
            r#"{"plugins": [{"type":"outboard","subnet":"a","kind":"vhostuser"},{"type":"tuning"}]}"#,
        ),
        ("link", r#"{"type": "outboard", "subnet": "a"}"#),
        ("other", r#"{"type": "userspace", "kind": "vhostuser"}"#),
        ("none", ""),
    ] {
        let network = json!({
            "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name, "namespace": "default"}, "spec": {"config": config},
        });
        apply(&network.to_string());
    }
    let kustomization = manifests("kubevirt");
    server
        .kubectl("admin", &["apply", "-k", &kustomization], "")
        .unwrap();
    let policy = std::fs::read_to_string(manifests("kubevirt/default-binding.yaml")).unwrap();
    let version = "apiVersion: admissionregistration.k8s.io/v1";
    assert_eq!(policy.matches(version).count(), 2);
    // What the manifest says for this version of Kubernetes.
    apply(&policy.replace(version, &format!("{version}beta1")));

    let bound = json!({"name": "vhost-user-net-1", "binding": {"name": "vhostuser"}});
    server.eventually("the interface to be bound", |server| {
        let made = created(server, LITERAL).unwrap();
        interfaces(&made)[1] == bound
    });
    let made = created(&server, LITERAL).unwrap();
    assert_eq!(
        interfaces(&made)[0],
        json!({"name": "default", "masquerade": {}})
    );
    which_are_bound(&server);

    which_are_refused(&server);
}

/// What `policy.yaml` refuses: also of an interface that was bound by the other policy.
fn which_are_refused(server: &ApiServer) {
    let unshared = LITERAL.replace(
        "name: vm-trex-1",
        "name: vm-trex-1\n  annotations: {kubevirt.io/memfd: \"false\"}",
    );
    let says = "would start and lose every packet";
    server.eventually("the policy to work", |server| {
        created(server, &unshared).is_err_and(|said| said.contains(says))
    });
    let bound = LITERAL.replace("vhostuser: {}", "binding: {name: vhostuser}");
    let no_socket = "the pod's own network has no socket for it";
    for (from, to, says) in [
        (
            "multus:\n      networkName: userspace-ovs-net-1",
            "pod: {}",
            no_socket,
        ),
        (
            "- name: vhost-user-net-1\n    multus",
            "- name: another\n    multus",
            no_socket,
        ),
        (
            "  domain:",
            "  domain:\n    launchSecurity: {sev: {}}",
            "which launchSecurity encrypts",
        ),
    ] {
        let wrong = bound.replace(from, to);
        assert_ne!(wrong, bound, "{from}");
        refused(
            to,
            created(server, &wrong).map(|made| made.to_string()),
            says,
        );
    }
    created(server, &bound).unwrap();
}

/// A machine of each kind, with one interface in that network.
fn which_are_bound(server: &ApiServer) {
    let binding = json!({"binding": {"name": "vhostuser"}});
    let none = json!({});
    let multus = |name: &str| json!({"multus": {"networkName": name}});
    let table = [
        (none.clone(), multus("several"), &binding),
        (none.clone(), multus("default/several"), &binding),
        (none.clone(), multus("elsewhere/several"), &none),
        (none.clone(), multus("link"), &none),
        (none.clone(), multus("other"), &none),
        (none.clone(), multus("none"), &none),
        (none.clone(), multus("nowhere"), &none),
        (none.clone(), json!({"pod": {}}), &none),
        (
            none.clone(),
            json!({"multus": {"networkName": "several", "default": true}}),
            &none,
        ),
        (
            json!({"sriov": {}}),
            multus("several"),
            &json!({"sriov": {}}),
        ),
        (
            json!({"binding": {"name": "x"}}),
            multus("several"),
            &json!({"binding": {"name": "x"}}),
        ),
    ];
    let named = |name: &str, mut object: Value| {
        object["name"] = name.into();
        object
    };
    for (interface, network, expected) in table {
        // The one in question is not the first.
        let spec = json!({
            "domain": {"devices": {"interfaces": [
                {"name": "first", "masquerade": {}}, named("net1", interface.clone()),
            ]}},
            "networks": [{"name": "first", "pod": {}}, named("net1", network.clone())],
        });
        let machine = |kind: &str, spec: Value| {
            let head = json!({"name": "m", "namespace": "default"});
            json!({"apiVersion": "kubevirt.io/v1", "kind": kind, "metadata": head, "spec": spec})
        };
        let instance = machine("VirtualMachineInstance", spec.clone());
        let instance = created(server, &instance.to_string()).unwrap();
        let template = machine("VirtualMachine", json!({"template": {"spec": spec}}));
        let template = created(server, &template.to_string()).unwrap();
        for spec in [&instance["spec"], &template["spec"]["template"]["spec"]] {
            let made = &spec["domain"]["devices"]["interfaces"][1];
            assert_eq!(
                *made,
                named("net1", expected.clone()),
                "{interface} in {network}"
            );
        }
    }
    // A machine without interfaces, and one without networks.
    for devices in [json!({}), json!({"interfaces": [{"name": "net1"}]})] {
        let text = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance", "metadata": {"name": "m"},
            "spec": {"domain": {"devices": devices}},
        });
        let made = created(server, &text.to_string()).unwrap();
        assert_eq!(made["spec"]["domain"]["devices"], devices);
    }
}

/// What the object would be, or why there would be none.
fn created(server: &ApiServer, object: &str) -> Result<Value, String> {
    let how = [
        "create",
        "--dry-run=server",
        "--validate=warn",
        "-o",
        "json",
        "-f",
        "-",
    ];
    let text = server.kubectl("admin", &how, object)?;
    Ok(serde_json::from_str(&text).unwrap())
}

fn interfaces(instance: &Value) -> &Value {
    &instance["spec"]["domain"]["devices"]["interfaces"]
}

/// The kind of the instances takes no unknown field, as KubeVirt's does not: it gets the schema of the machines' template.
fn narrow(server: &ApiServer) {
    let show = ["get", "crd", "virtualmachines.kubevirt.io", "-o", "json"];
    let text = server.kubectl("admin", &show, "").unwrap();
    let machines: Value = serde_json::from_str(&text).unwrap();
    let schema = &machines["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = &schema["properties"]["spec"]["properties"]["template"]["properties"]["spec"];
    assert!(spec["properties"]["domain"].is_object());
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    let patch = json!([{"op": "replace", "path": path, "value": spec}]).to_string();
    let how = [
        "patch",
        "crd",
        "virtualmachineinstances.kubevirt.io",
        "--type=json",
        "-p",
        &patch,
    ];
    server.kubectl("admin", &how, "").unwrap();
}
