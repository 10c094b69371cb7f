//! A configuration made of sensible parts, with a `prevResult`: most of what a fuzzer makes of text alone is no JSON.
#![no_main]

#[path = "../../cni/bin/tests/corpus/check.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod check;

use std::net::IpAddr;

use arbitrary::Arbitrary;
use cni_bin::wire::Command;
use serde_json::{Value, json};

const VERSIONS: [&str; 8] = [
    "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "0.2.0", "1.2.0", "",
];
const COMMANDS: [Command; 5] = [
    Command::Add,
    Command::Del,
    Command::Check,
    Command::Gc,
    Command::Status,
];

#[derive(Debug, Arbitrary)]
struct Interface {
    name: String,
    mac: Option<String>,
    mtu: Option<u32>,
    sandbox: Option<String>,
    socket: Option<String>,
    pci: Option<String>,
}

#[derive(Debug, Arbitrary)]
struct Address {
    interface: Option<i32>,
    ip: IpAddr,
    prefix: u8,
    gateway: Option<IpAddr>,
}

#[derive(Debug, Arbitrary)]
struct Route {
    ip: IpAddr,
    prefix: u8,
    gateway: Option<IpAddr>,
    numbers: [Option<u32>; 5],
}

#[derive(Debug, Arbitrary)]
struct Configuration {
    command: u8,
    version: u8,
    name: String,
    subnet: Option<String>,
    mtu: Option<i64>,
    timeout: Option<u16>,
    device: Option<String>,
    previous: Option<(Vec<Interface>, Vec<Address>, Vec<Route>)>,
    valid: Option<Vec<(String, String)>>,
    arguments: String,
}

libfuzzer_sys::fuzz_target!(|conf: Configuration| {
    let command = COMMANDS[usize::from(conf.command) % COMMANDS.len()];
    check::arguments(&conf.arguments);
    check::configuration(command, &document(&conf).to_string());
});

fn document(conf: &Configuration) -> Value {
    let mut document = json!({
        "cniVersion": VERSIONS[usize::from(conf.version) % VERSIONS.len()],
        "name": format!("n{}", conf.name),
        "type": "outboard",
    });
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            document[key] = value;
        }
    };
    put("subnet", conf.subnet.as_ref().map(|text| json!(text)));
    put("mtu", conf.mtu.map(|mtu| json!(mtu)));
    put("timeoutSeconds", conf.timeout.map(|seconds| json!(seconds)));
    let device = |text: &String| json!({"deviceID": text, "ips": [text]});
    put("runtimeConfig", conf.device.as_ref().map(device));
    put("prevResult", conf.previous.as_ref().map(result));
    let valid = |list: &Vec<(String, String)>| {
        let list = list
            .iter()
            .map(|(id, ifname)| json!({"containerID": id, "ifname": ifname}));
        Value::Array(list.collect())
    };
    put("cni.dev/valid-attachments", conf.valid.as_ref().map(valid));
    document
}

fn result((interfaces, addresses, routes): &(Vec<Interface>, Vec<Address>, Vec<Route>)) -> Value {
    let net = |ip: &IpAddr, prefix: u8| {
        let most = if ip.is_ipv4() { 33 } else { 129 };
        format!("{ip}/{}", prefix % most)
    };
    let interfaces = interfaces.iter().map(|interface| {
        let mut value = json!({"name": interface.name});
        let text = [
            ("mac", &interface.mac),
            ("sandbox", &interface.sandbox),
            ("socketPath", &interface.socket),
            ("pciID", &interface.pci),
        ];
        for (key, text) in text {
            if let Some(text) = text {
                value[key] = json!(text);
            }
        }
        value["mtu"] = json!(interface.mtu);
        value
    });
    let addresses = addresses.iter().map(|address| {
        let net = net(&address.ip, address.prefix);
        json!({"interface": address.interface, "address": net, "gateway": address.gateway})
    });
    let routes = routes.iter().map(|route| {
        let [mtu, advmss, priority, table, scope] = route.numbers;
        json!({"dst": net(&route.ip, route.prefix), "gw": route.gateway, "mtu": mtu, "advmss": advmss,
            "priority": priority, "table": table, "scope": scope})
    });
    json!({
        "interfaces": interfaces.collect::<Vec<_>>(),
        "ips": addresses.collect::<Vec<_>>(),
        "routes": routes.collect::<Vec<_>>(),
    })
}
