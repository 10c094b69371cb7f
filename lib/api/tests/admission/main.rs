//! What the API server takes and refuses, by the manifests: rules of the CRDs, the admission policy
//! and the roles, with the real kube-apiserver.

#![allow(clippy::unwrap_used, reason = "a test")]

mod apiserver;
mod machines;

use apiserver::ApiServer;
use std::path::Path;

fn manifests(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../manifests")
        .join(path)
        .display()
        .to_string()
}

#[test]
fn the_api_server_takes_what_is_right_and_says_what_is_wrong() {
    let server = ApiServer::start();
    server
        .kubectl("admin", &["create", "namespace", "outboard-system"], "")
        .unwrap();
    // The overlay has nothing that is not in the CRDs, but those have to be served first.
    server
        .kubectl(
            "admin",
            &["apply", "--server-side", "-k", &manifests("crds")],
            "",
        )
        .unwrap();
    for crd in [
        "crd/vpcs.iaas.yusur.io",
        "crd/subnets.iaas.yusur.io",
        "crd/dpus.iaas.yusur.io",
    ] {
        server
            .kubectl(
                "admin",
                &["wait", "--for=condition=Established", "--timeout=30s", crd],
                "",
            )
            .unwrap();
    }
    for overlay in ["overlays/lab", "overlays/example"] {
        server
            .kubectl(
                "admin",
                &[
                    "apply",
                    "--server-side",
                    "--force-conflicts",
                    "-k",
                    &manifests(overlay),
                ],
                "",
            )
            .unwrap();
    }
    subnets(&server);
    vpcs(&server);
    dpus(&server);
    pods(&server);
    roles(&server);
}

fn subnet(server: &ApiServer, name: &str, spec: &str) -> Result<String, String> {
    let object = format!(
        "apiVersion: iaas.yusur.io/v1\nkind: Subnet\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    );
    server.kubectl("admin", &["apply", "-f", "-"], &object)
}

fn refused(what: &str, answer: Result<String, String>, sentence: &str) {
    let error = answer.expect_err(what);
    assert!(error.contains(sentence), "{what}: {error}");
}

fn subnets(server: &ApiServer) {
    let everything = r#"{cidrs: ["10.1.0.0/16", "fd00:1::/64"], gateways: ["10.1.0.254"], namespaces: [a, "*"], primary: true,
        excludes: ["10.1.0.2..10.1.0.9", "10.1.1.0/24", "10.1.0.50", "fd00:1::2..fd00:1::9"], natOutgoing: true, mtu: 1400}"#;
    subnet(server, "all", everything).unwrap();
    subnet(server, "few", r#"{cidrs: ["10.9.0.0/24"]}"#).unwrap();
    let defaults = server
        .kubectl(
            "admin",
            &["get", "subnet", "few", "-o", "jsonpath={.spec}"],
            "",
        )
        .unwrap();
    let spec: api::SubnetSpec = serde_json::from_str(&defaults).unwrap();
    assert_eq!(spec, api::SubnetSpec::new(["10.9.0.0/24".parse().unwrap()]));

    let table = [
        (
            "node",
            r#"{cidrs: ["10.2.0.0/16"]}"#,
            "taken by the ports of nodes",
        ),
        ("a.b", r#"{cidrs: ["10.2.0.0/16"]}"#, "DNS label"),
        ("x", "{}", "spec.cidrs: Required"),
        ("x", "{cidrs: []}", "at least 1 items"),
        ("x", r#"{cidrs: ["ten"]}"#, "must be a CIDR"),
        ("x", r#"{cidrs: ["10.2.0.1/16"]}"#, "must be zero"),
        (
            "x",
            r#"{cidrs: ["10.2.0.0/16", "10.3.0.0/16"]}"#,
            "at most one IPv4",
        ),
        ("x", r#"{cidrs: ["10.2.0.0/31"]}"#, "8 to 30 bits"),
        (
            "x",
            r#"{cidrs: ["10.2.0.0/16"], gateways: ["10.3.0.1"]}"#,
            "must lie in one of the cidrs",
        ),
        (
            "x",
            r#"{cidrs: ["10.2.0.0/16"], gateways: ["10.2.0.1", "10.2.0.2"]}"#,
            "at most one IPv4",
        ),
        (
            "x",
            r#"{cidrs: ["10.2.0.0/16"], excludes: ["10.2.0.1-9"]}"#,
            "an address, a range",
        ),
        (
            "x",
            r#"{cidrs: ["10.2.0.0/16"], vpc: blue, natOutgoing: true}"#,
            "other VPCs have no way out",
        ),
        (
            "x",
            r#"{cidrs: ["10.2.0.0/16"], primary: true}"#,
            "needs namespaces",
        ),
        (
            "x",
            r#"{cidrs: ["fd00:2::/64"], mtu: 1000}"#,
            "at least 1280",
        ),
        ("few", r#"{cidrs: ["10.8.0.0/24"]}"#, "cidrs cannot change"),
        (
            "few",
            r#"{cidrs: ["10.9.0.0/24"], vpc: blue}"#,
            "vpc cannot change",
        ),
        (
            "few",
            r#"{cidrs: ["10.9.0.0/24"], gateways: ["10.9.0.9"]}"#,
            "gateways cannot change",
        ),
    ];
    for (name, spec, sentence) in table {
        refused(spec, subnet(server, name, spec), sentence);
    }
    // What may change.
    subnet(
        server,
        "few",
        r#"{cidrs: ["10.9.0.0/24"], services: false, excludes: ["10.9.0.7"]}"#,
    )
    .unwrap();
}

fn vpcs(server: &ApiServer) {
    let vpc = |name: &str| {
        let object = format!(
            "apiVersion: iaas.yusur.io/v1\nkind: Vpc\nmetadata: {{name: {name}}}\nspec: {{}}\n"
        );
        server.kubectl("admin", &["apply", "-f", "-"], &object)
    };
    vpc("blue").unwrap();
    refused("name", vpc("light.blue"), "DNS label");
}

fn dpus(server: &ApiServer) {
    let dpu = |name: &str, spec: &str| {
        let object = format!(
            "apiVersion: iaas.yusur.io/v1\nkind: Dpu\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        server.kubectl("admin", &["apply", "-f", "-"], &object)
    };
    let least = "{dpuNode: d1, hostNode: h1, address: 198.18.0.12}";
    dpu("one", least).unwrap();
    let show = ["get", "dpu", "one", "-o", "jsonpath={.spec}"];
    let spec: api::DpuSpec =
        serde_json::from_str(&server.kubectl("admin", &show, "").unwrap()).unwrap();
    let address = std::net::Ipv4Addr::new(198, 18, 0, 12);
    assert_eq!(spec, api::DpuSpec::new("d1", "h1", address.into()));
    let all = r#"{dpuNode: d2.example.com, hostNode: h2, address: "fd00::12", port: 1234, controller: 1}"#;
    dpu("all", all).unwrap();
    let table = [
        ("x", "{hostNode: h1, address: 198.18.0.12}", "spec.dpuNode"),
        (
            "x",
            "{dpuNode: d1, hostNode: d1, address: 198.18.0.12}",
            "two nodes",
        ),
        (
            "x",
            "{dpuNode: d1, hostNode: h1, address: d1}",
            "must be an IP address",
        ),
        (
            "x",
            "{dpuNode: d1, hostNode: h1, address: 198.18.0.12, port: 0}",
            "spec.port",
        ),
        (
            "x",
            "{dpuNode: 198.18.0.1, hostNode: h1, address: 198.18.0.12}",
            "look like an address",
        ),
        (
            "x",
            "{dpuNode: d1, hostNode: 198.18.0.1, address: 198.18.0.12}",
            "look like an address",
        ),
        (
            "x",
            "{dpuNode: 'D 1', hostNode: h1, address: 198.18.0.12}",
            "spec.dpuNode",
        ),
        (
            "one",
            "{dpuNode: d9, hostNode: h1, address: 198.18.0.12}",
            "dpuNode cannot change",
        ),
    ];
    for (name, spec, sentence) in table {
        refused(spec, dpu(name, spec), sentence);
    }
    // What may change: the DPU serves another host now.
    dpu("one", "{dpuNode: d1, hostNode: h9, address: 198.18.0.13}").unwrap();
    let columns = server.kubectl("admin", &["get", "dpu", "one"], "").unwrap();
    for column in [
        "DPU",
        "HOST",
        "READY",
        "HOSTSEEN",
        "FUNCTIONS",
        "FREE",
        "HEARTBEAT",
        "AGE",
    ] {
        assert!(columns.contains(column), "{columns}");
    }
}

fn pods(server: &ApiServer) {
    let pod = |name: &str, annotations: &str, labels: &str| {
        let object = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, annotations: {{{annotations}}}, labels: {{{labels}}}}}\nspec: {{containers: [{{name: a, image: b}}]}}\n"
        );
        server.kubectl("admin", &["create", "-f", "-"], &object)
    };
    // The policy is compiled a moment after it is stored; a dry run leaves nothing behind.
    server.eventually("the admission policy to work", |server| {
        let probe = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"probe","namespace":"default","labels":{"iaas.yusur.io/probe":"x"}},"spec":{"containers":[{"name":"a","image":"b"}]}}"#;
        server.kubectl("admin", &["create", "--dry-run=server", "-f", "-"], probe).is_err()
    });
    pod(
        "asks",
        r#""iaas.yusur.io/ips": "10.1.0.5", "iaas.yusur.io/mac": "0a:58:00:00:00:01", "iaas.yusur.io/network-ips": "{}""#,
        "",
    )
    .unwrap();
    pod("plain", "a: b", "c: d").unwrap();
    refused(
        "a fact",
        pod("x", r#""iaas.yusur.io/allocated": "10.1.0.5""#, ""),
        "no other may be set",
    );
    refused(
        "a label",
        pod("x", "", r#""iaas.yusur.io/subnet": "y""#),
        "labels under iaas.yusur.io/",
    );

    let change = |arguments: &[&str]| server.kubectl("admin", arguments, "");
    let ask = "iaas.yusur.io/ips=10.1.0.6";
    refused(
        "a change",
        change(&["annotate", "--overwrite", "pod", "asks", ask]),
        "none changed",
    );
    refused(
        "a removal",
        change(&["annotate", "pod", "asks", "iaas.yusur.io/ips-"]),
        "cannot be removed",
    );
    refused(
        "a late request",
        change(&["annotate", "pod", "plain", ask]),
        "none changed",
    );
    let patch = r#"{"metadata":{"annotations":{"iaas.yusur.io/mac":"x"}}}"#;
    let by_status = [
        "patch",
        "pod",
        "plain",
        "--subresource=status",
        "--type=merge",
        "-p",
        patch,
    ];
    refused("by the status", change(&by_status), "none changed");
    change(&["annotate", "pod", "asks", "other=1"]).unwrap();
    change(&["label", "pod", "asks", "other=1"]).unwrap();
}

/// Whether the service account may, as `kubectl auth can-i` sees it.
fn roles(server: &ApiServer) {
    let may = |account: &str, what: &str| {
        let user = format!("--as=system:serviceaccount:outboard-system:{account}");
        let arguments: Vec<&str> = ["auth", "can-i", &user]
            .into_iter()
            .chain(what.split(' '))
            .collect();
        server.kubectl("admin", &arguments, "").is_ok()
    };
    for what in ["create csr", "get csr", "watch csr"] {
        assert!(may("cni-node", what), "cni-node may not {what}");
    }
    let node_may_not = [
        "delete csr",
        "update csr --subresource=approval",
        "get pods",
        "list nodes",
        "get secrets -n outboard-system",
        "patch pods",
        "get configmaps -n outboard-system",
        "create subnets.iaas.yusur.io",
        "create pods",
    ];
    for what in node_may_not {
        assert!(!may("cni-node", what), "cni-node may {what}");
    }
    for what in [
        "create csr",
        "watch csr",
        "get dpus.iaas.yusur.io",
        "watch dpus.iaas.yusur.io",
    ] {
        for account in ["cni-node-host", "cni-node-dpu"] {
            assert!(may(account, what), "{account} may not {what}");
        }
    }
    let dpu_alone = [
        "patch dpus.iaas.yusur.io --subresource=status",
        "create events.events.k8s.io",
    ];
    for what in dpu_alone {
        assert!(may("cni-node-dpu", what), "cni-node-dpu may not {what}");
        assert!(!may("cni-node-host", what), "cni-node-host may {what}");
        assert!(!may("cni-node", what), "cni-node may {what}");
    }
    let neither_may = [
        "create dpus.iaas.yusur.io",
        "patch dpus.iaas.yusur.io",
        "delete dpus.iaas.yusur.io",
        "update dpus.iaas.yusur.io --subresource=status",
        "patch events.events.k8s.io",
        "create events",
        "list events",
        "get subnets.iaas.yusur.io",
    ];
    for what in node_may_not.iter().chain(&neither_may) {
        for account in ["cni-node-host", "cni-node-dpu"] {
            assert!(!may(account, what), "{account} may {what}");
        }
    }
    let controller_may = [
        "watch dpus.iaas.yusur.io",
        "patch dpus.iaas.yusur.io --subresource=status",
        "patch nodes --subresource=status",
        // Further than this goes outboard-node-keys.
        "patch nodes",
        "watch pods",
        "watch nodes",
        "watch services",
        "watch endpointslices.discovery.k8s.io",
        "create subnets.iaas.yusur.io",
        "patch subnets.iaas.yusur.io --subresource=status",
        "create events.events.k8s.io",
        "patch csr --subresource=approval",
        "patch csr --subresource=status",
        "create leases -n outboard-system",
        "update leases/cni-controller -n outboard-system",
        "patch configmaps/outboard-dpus -n outboard-system",
    ];
    for what in controller_may {
        assert!(may("cni-controller", what), "cni-controller may not {what}");
    }
    let controller_may_not = [
        "get secrets -n outboard-system",
        "patch pods",
        "create pods",
        "update nodes",
        "delete nodes",
        "patch dpus.iaas.yusur.io",
        "delete subnets.iaas.yusur.io",
        "get secrets -n kube-system",
        "update leases/other -n outboard-system",
        "patch configmaps/outboard-config -n outboard-system",
        "get configmaps -n outboard-system",
        "create pods --subresource=exec",
    ];
    for what in controller_may_not {
        assert!(!may("cni-controller", what), "cni-controller may {what}");
    }
}
