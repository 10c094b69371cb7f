//! Chains with real plugins before (loopback) and after us (portmap), by the real `cnitool`.

use e2e::{CniCall, CniOutcome, Node};
use rstest::rstest;
use serde_json::{Value, json};

use crate::world::{Pod, fresh, world};

/// Runs `cnitool` for a chain on a pod's sandbox.
struct Chain<'a> {
    network: String,
    conflist: String,
    pod: &'a Pod<'a>,
    node: &'a Node,
}

impl<'a> Chain<'a> {
    fn new(version: &str, plugins: &Value, pod: &'a Pod<'a>, node: &'a Node) -> Self {
        let network = fresh("chain");
        let conflist = json!({"cniVersion": version, "name": network, "plugins": plugins});
        Self {
            network,
            conflist: conflist.to_string(),
            pod,
            node,
        }
    }

    fn run(&self, verb: &str, capabilities: &str) -> CniOutcome {
        let arguments = self.pod.row.arguments("cnitool");
        let call = CniCall::new(verb, self.conflist.clone())
            .env("CNI_ARGS", &arguments)
            .env("CAP_ARGS", capabilities);
        call.cnitool(self.node, &self.network, &self.pod.sandbox)
            .unwrap()
    }
}

#[rstest]
fn a_chain_of_three(#[values("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")] version: &str) {
    let lab = world();
    let node = lab.node("n1");
    let pod = Pod::new(&lab, node, "chain");
    let plugins = json!([
        {"type": "loopback"},
        {"type": "outboard", "timeoutSeconds": 20},
        {"type": "portmap", "backend": "nftables", "snat": true, "capabilities": {"portMappings": true}},
    ]);
    let chain = Chain::new(version, &plugins, &pod, node);
    let port = 20_000 + u32::from(version.bytes().fold(0u8, |sum, b| sum.wrapping_mul(3) ^ b));
    let mapping =
        json!({"portMappings": [{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]});
    let mapping = mapping.to_string();

    let result = chain.run("ADD", &mapping).result().unwrap();
    assert_eq!(result["cniVersion"], version);
    let names: Vec<&str> = result["interfaces"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["name"].as_str().unwrap())
        .collect();
    assert!(
        matches!(names[..], ["lo", link, "eth0"] if link.starts_with("ob")),
        "{result}"
    );
    let ours: Vec<&Value> = result["ips"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|ip| ip["interface"] == 2)
        .collect();
    assert_eq!(ours.len(), 2, "{result}");
    assert!(
        result["ips"]
            .as_array()
            .unwrap()
            .iter()
            .any(|ip| ip["address"] == "127.0.0.1/8"),
        "{result}"
    );
    pod.reaches("10.244.0.1");
    let rules = node.exec(&["nft", "list", "ruleset"]).unwrap();
    let maps = |rules: &str| rules.contains(&port.to_string()) && rules.contains(&pod.row.v4());
    assert!(maps(&rules), "{rules}");

    let check = chain.run("CHECK", &mapping);
    if version >= "0.4.0" {
        check.result().unwrap();
        pod.sandbox
            .exec(&["ip", "route", "del", "default"])
            .unwrap();
        let check = chain.run("CHECK", &mapping);
        assert!(!check.success);
        let said = check.stdout + &check.stderr;
        assert!(said.contains("it has no route to 0.0.0.0/0"), "{said}");
    } else {
        // libcni itself refuses what the version does not have.
        assert!(!check.success, "{check:?}");
    }
    for _ in 0..2 {
        chain.run("DEL", &mapping).result().unwrap();
        pod.sandbox
            .exec(&["ip", "link", "show", "dev", "eth0"])
            .unwrap_err();
    }
    let rules = node.exec(&["nft", "list", "ruleset"]).unwrap();
    assert!(!maps(&rules), "{rules}");
}

#[test]
fn cnitool_asks_for_status_and_collects_garbage() {
    let lab = world();
    let node = lab.node("n2");
    let pod = Pod::new(&lab, node, "tool");
    let other = Pod::new(&lab, node, "tool");
    let plugins = json!([{"type": "outboard", "timeoutSeconds": 20}]);
    let chain = Chain::new("1.1.0", &plugins, &pod, node);
    let beside = Chain::new("1.1.0", &plugins, &other, node);
    chain.run("STATUS", "").result().unwrap();
    chain.run("ADD", "").result().unwrap();
    beside.run("ADD", "").result().unwrap();
    // It knows of no attachment that is valid: libcni DELs those of this network, and sends GC without a list.
    let gc = chain.run("GC", "");
    assert!(gc.success, "{gc:?}");
    pod.sandbox
        .exec(&["ip", "link", "show", "dev", "eth0"])
        .unwrap_err();
    other.reaches("10.244.0.1");
    beside.run("DEL", "").result().unwrap();

    let versions = json!([{"type": "outboard", "subnet": 3}]);
    let bad = Chain::new("1.0.0", &versions, &pod, node).run("ADD", "");
    assert!(!bad.success);
    let said = bad.stdout + &bad.stderr;
    for part in ["\"subnet\" is 3", "Write the name of a Subnet"] {
        assert!(said.contains(part), "{said}");
    }
}

#[rstest]
fn what_came_before_is_passed_on(
    #[values("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")] version: &str,
) {
    let lab = world();
    let node = lab.node("n2");
    let pod = Pod::new(&lab, node, "later");
    let mut before = json!({
        "cniVersion": version,
        "interfaces": [{"name": "first0", "mac": "02:00:00:00:00:01", "sandbox": pod.sandbox.path()}],
        "ips": [{"interface": 0, "address": "198.18.7.2/24", "gateway": "198.18.7.1"}],
        "routes": [{"dst": "198.19.0.0/16", "gw": "198.18.7.1"}],
        "dns": {"nameservers": ["198.18.7.53"], "search": ["first.example"]},
    });
    if version < "1.0.0" {
        before["ips"][0]["version"] = json!("4");
    }
    let more = json!({"prevResult": before});
    let result = pod.run("ADD", version, &more).result().unwrap();
    assert_eq!(result["interfaces"][0], before["interfaces"][0]);
    assert_eq!(result["ips"][0], before["ips"][0]);
    assert_eq!(result["routes"][0], before["routes"][0]);
    assert_eq!(result["dns"], before["dns"]);
    assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
    assert_eq!(
        (
            &result["ips"][1]["interface"],
            &result["ips"][2]["interface"]
        ),
        (&json!(2), &json!(2))
    );
    if version >= "0.4.0" {
        // What the plugin before us made is not ours to check.
        pod.check(version, &result).result().unwrap();
    }
    pod.del(version);
    pod.left_nothing();
}
