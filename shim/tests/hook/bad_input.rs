//! What a VM, its pod's files or its CNI may have wrong: virt-launcher gets one sentence with a code, and when it is put right the next call of
//! the same program succeeds. virt-handler calls again by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::Code;

use crate::sidecar::{Pod, Sidecar};
use crate::{DOMAIN, MAC, SOCKET, collect, network_info, vmi};

fn info(entries: &[Value]) -> String {
    json!({ "interfaces": entries }).to_string()
}

fn entry(network: &str, path: &str) -> Value {
    let device = json!({"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": "server", "path": path}});
    json!({"network": network, "deviceInfo": device, "mac": MAC})
}

/// All files below, so that nothing is left unseen.
fn files(below: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            all.push(path.display().to_string());
        }
    }
    all.sort();
    all
}

#[tokio::test]
async fn what_the_files_say_wrongly_is_one_sentence_and_leaves_nothing() {
    let pod = Pod::new();
    pod.write("podinfo/network-info", &network_info());
    let mut sidecar = Sidecar::start(&pod, 0, &["--wait", "1s"]);
    let manager = collect(&pod, 1).await;
    let right = vmi(Value::Null);
    let changed = |change: fn(&mut Value)| {
        let mut vmi: Value = serde_json::from_str(&right).unwrap();
        change(&mut vmi["spec"]);
        vmi.to_string()
    };
    let on_pod = changed(|spec| spec["networks"][1] = json!({"name": "net1", "pod": {}}));
    let nowhere = changed(|spec| spec["networks"][1]["name"] = "other".into());
    let two = changed(|spec| {
        for list in ["/domain/devices/interfaces", "/networks"] {
            let list = spec.pointer_mut(list).unwrap().as_array_mut().unwrap();
            let mut second = list[1].clone();
            second["name"] = "net2".into();
            list.push(second);
        }
    });
    let long = format!("/{}.sock", "d".repeat(120));
    let before = files(&pod.hooks());
    let (failed, late) = (Code::FailedPrecondition, Code::Unavailable);
    for (files_say, vmi, code, says) in [
        // It may be the pod's own network that network-info names, so that one is waited for.
        (info(&[]), &on_pod, late, "needs a secondary network"),
        (network_info(), &nowhere, failed, "no network of that name"),
        (
            String::new(),
            &right,
            late,
            "does not name network net1 yet",
        ),
        (
            info(&[json!({"network": "net1", "mac": MAC})]),
            &right,
            failed,
            "\"kind\": \"vhostuser\"",
        ),
        (info(&[entry("net1", &long)]), &right, failed, "is too long"),
        (
            info(&[entry("net1", "/var/run/../../etc/x")]),
            &right,
            failed,
            "leaves its directory",
        ),
        (
            info(&[entry("net1", SOCKET), entry("net2", SOCKET)]),
            &two,
            failed,
            "is interface net1's as well",
        ),
    ] {
        pod.write("podinfo/network-info", &files_say);
        let began = Instant::now();
        let error = manager.on_define_domain(DOMAIN, vmi).await.unwrap_err();
        let sentence = error.message();
        assert_eq!(error.code(), code, "{sentence}");
        assert!(sentence.contains(says), "{says}: {sentence}");
        assert!(
            sentence.contains("of VM shop/db: ") && !sentence.contains('\n'),
            "{sentence}"
        );
        assert!(began.elapsed() < Duration::from_secs(20));
        assert_eq!(files(&pod.hooks()), before, "{says}");
    }
    pod.write("podinfo/network-info", &network_info());
    let xml = manager.on_define_domain(DOMAIN, &right).await.unwrap();
    assert!(xml.contains(SOCKET), "{xml}");
    assert!(sidecar.runs());
}
