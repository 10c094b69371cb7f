//! The program itself, called as virt-launcher calls it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod bad_input;
#[path = "../hooks/launcher.rs"]
mod launcher;
#[path = "../hooks/lossy.rs"]
mod lossy;
mod sidecar;

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use launcher::{CloudInit, Manager};
use serde_json::{Value, json};
use sidecar::{Pod, Sidecar};
use tonic::Code;

const MAC: &str = "02:00:00:00:00:01";
const SOCKET: &str = "/var/run/kubevirt-hooks/outboard/net/pod6c270ef2f25.sock";
const DOMAIN: &str = "<domain type=\"kvm\">\n\t<memory unit=\"b\">1</memory>\n\t<devices>\n\t\t<interface type=\"ethernet\">\n\t\t\t<source></source>\n\t\t\t<alias name=\"ua-default\"></alias>\n\t\t</interface>\n\t</devices>\n\t<vcpu>1</vcpu>\n</domain>";

#[allow(clippy::needless_pass_by_value, reason = "cases read better so")]
fn vmi(annotations: Value) -> String {
    json!({
        "metadata": {"name": "db", "namespace": "shop", "uid": "u-1", "annotations": annotations},
        "spec": {
            "domain": {"devices": {"interfaces": [
                {"name": "default", "masquerade": {}},
                {"name": "net1", "macAddress": MAC, "binding": {"name": "vhostuser"}},
            ]}},
            "networks": [{"name": "default", "pod": {}}, {"name": "net1", "multus": {"networkName": "fast"}}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "db"}}],
        },
    })
    .to_string()
}

fn network_info() -> String {
    let device = json!({"type": "vhost-user", "version": "1.1.0", "vhost-user": {"mode": "server", "path": SOCKET}});
    json!({"interfaces": [{"network": "net1", "deviceInfo": device, "mac": MAC, "mtu": 1442}]})
        .to_string()
}

async fn collect(pod: &Pod, count: usize) -> Manager {
    Manager::collect(&pod.hooks(), count, Duration::from_secs(20))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_start_with_three_calls_and_its_end() {
    let pod = Pod::new();
    pod.write("podinfo/network-info", &network_info());
    let mut sidecar = Sidecar::start(&pod, 0, &[]);
    let manager = collect(&pod, 1).await;
    let info = &manager.sidecars[0].info;
    assert_eq!(manager.sidecars[0].version, "v1alpha3");
    let points: Vec<_> = info.hook_points.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(points, ["OnDefineDomain", "Shutdown"]);
    let vmi = vmi(Value::Null);
    let first = manager.on_define_domain(DOMAIN, &vmi).await.unwrap();
    assert!(
        first.contains(&format!("path='{SOCKET}' mode='server'")),
        "{first}"
    );
    assert!(first.contains("<access mode='shared'/>"), "{first}");
    let mut answer = first;
    for _ in 0..2 {
        let lost = lossy::round_trip(&answer);
        assert!(!lost.contains(SOCKET), "{lost}");
        answer = manager.on_define_domain(&lost, &vmi).await.unwrap();
        assert_eq!(answer.matches(SOCKET).count(), 1, "{answer}");
        assert_eq!(answer.matches("ua-net1").count(), 2, "{answer}");
    }
    let resident = sidecar.resident_kib();
    assert!(
        resident <= 4 * 1024,
        "{resident} KiB of its own, at most 4 MiB"
    );
    manager.shutdown().await.unwrap();
    assert_eq!(sidecar.ended().await.code(), Some(0));
    let log = sidecar.log();
    for word in [
        "OnDefineDomain",
        "shop/db",
        "net1",
        "pod6c270ef2f25",
        SOCKET,
        MAC,
        "Shutdown",
    ] {
        assert!(log.contains(word), "{word}: {log}");
    }
}

#[tokio::test]
async fn every_version_answers_the_same() {
    let pod = Pod::new();
    let _sidecar = Sidecar::start(&pod, 0, &[]);
    let manager = collect(&pod, 1).await;
    let vmi = vmi(Value::Null);
    let mut answers = Vec::new();
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        let answer = manager
            .speaking(version)
            .on_define_domain(DOMAIN, &vmi)
            .await;
        answers.push(answer.unwrap());
    }
    assert!(answers[0].contains(SOCKET));
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

/// One sidecar per binding; each touches its own interfaces, and virt-launcher tells them apart by file names.
#[tokio::test]
async fn two_sidecars_have_sockets_of_different_names() {
    let pod = Pod::new();
    let _first = Sidecar::start(&pod, 0, &[]);
    let _second = Sidecar::start(&pod, 1, &["--binding", "other"]);
    let manager = collect(&pod, 2).await;
    let xml = manager
        .on_define_domain(DOMAIN, &vmi(Value::Null))
        .await
        .unwrap();
    assert_eq!(xml.matches("vhostuser").count(), 1, "{xml}");
    let socket = |s: &launcher::Sidecar| s.socket.file_name().unwrap().to_owned();
    // In whatever order they were ready.
    let mut names: Vec<_> = manager.sidecars.iter().map(socket).collect();
    names.sort();
    assert_eq!(
        names,
        ["other-hook-sidecar-1.sock", "vhostuser-hook-sidecar-0.sock"]
    );
}

/// QEMU's sockets lie two directories deep, where virt-launcher does not look.
#[tokio::test]
async fn the_directory_holds_the_socket_alone_and_it_is_private() {
    let pod = Pod::new();
    std::fs::create_dir_all(pod.hooks().join("outboard/net")).unwrap();
    std::fs::write(pod.hooks().join("outboard/net/pod6c270ef2f25.sock"), "").unwrap();
    let _sidecar = Sidecar::start(&pod, 0, &[]);
    let manager = collect(&pod, 1).await;
    let entries = std::fs::read_dir(pod.hooks().join("hook-sidecar-0")).unwrap();
    assert_eq!(entries.count(), 1);
    let socket = std::fs::metadata(&manager.sidecars[0].socket).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
    assert_eq!(socket.uid(), nix::unistd::geteuid().as_raw());
}

/// The container starts again after a crash: the socket is there, and nobody behind it.
#[tokio::test]
async fn a_former_containers_socket_is_replaced() {
    let pod = Pod::new();
    let mut first = Sidecar::start(&pod, 0, &[]);
    let socket = collect(&pod, 1).await.sidecars[0].socket.clone();
    first.kill().await;
    assert!(socket.exists());
    let _second = Sidecar::start(&pod, 0, &[]);
    let manager = collect(&pod, 1).await;
    manager
        .on_define_domain(DOMAIN, &vmi(Value::Null))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_file_that_is_late_is_waited_for() {
    let pod = Pod::new();
    pod.directory("podinfo");
    let _sidecar = Sidecar::start(&pod, 0, &["--wait", "30s"]);
    let manager = collect(&pod, 1).await;
    let vmi = vmi(Value::Null);
    let calling = manager.on_define_domain(DOMAIN, &vmi);
    let writing = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        pod.write("podinfo/network-info", "");
        tokio::time::sleep(Duration::from_millis(300)).await;
        // As kubelet does: the directory's link goes to another directory, at once.
        pod.write("podinfo/new", &network_info());
        pod.rename("podinfo/new", "podinfo/network-info");
    };
    let (answer, ()) = tokio::join!(calling, writing);
    assert!(answer.unwrap().contains(SOCKET));
}

#[tokio::test]
async fn a_file_that_does_not_come_is_an_error_in_one_sentence() {
    let pod = Pod::new();
    pod.directory("podinfo");
    let _sidecar = Sidecar::start(&pod, 0, &["--wait", "1s"]);
    let manager = collect(&pod, 1).await;
    let began = Instant::now();
    let error = manager
        .on_define_domain(DOMAIN, &vmi(Value::Null))
        .await
        .unwrap_err();
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(error.code(), Code::Unavailable);
    for word in [
        "interface net1 of VM shop/db",
        "network-info",
        "see whether",
        "waited",
    ] {
        assert!(
            error.message().contains(word),
            "{word}: {}",
            error.message()
        );
    }
    assert!(!error.message().contains('\n'));
}

#[tokio::test]
async fn what_cannot_be_is_an_error_at_once_and_the_program_goes_on() {
    let pod = Pod::new();
    let mut sidecar = Sidecar::start(&pod, 0, &[]);
    let manager = collect(&pod, 1).await;
    let plain = vmi(Value::Null);
    let disk = vmi(json!({"iaas.yusur.io/vhost-user-blk": "data"}));
    let volume = vmi(json!({"iaas.yusur.io/vhost-user-blk": "../data"}));
    let unknown = vmi(json!({"iaas.yusur.io/vhost-user-blk": "logs"}));
    for (xml, vmi, code, says) in [
        (
            "<domain>",
            plain.as_str(),
            Code::InvalidArgument,
            "not well formed",
        ),
        ("<domain/>", &plain, Code::InvalidArgument, "no devices"),
        (DOMAIN, "{", Code::InvalidArgument, "VirtualMachineInstance"),
        (
            DOMAIN,
            &disk,
            Code::InvalidArgument,
            "the VM has no such disk",
        ),
        (
            DOMAIN,
            &volume,
            Code::InvalidArgument,
            "no name of a volume",
        ),
        (
            DOMAIN,
            &unknown,
            Code::InvalidArgument,
            "among spec.volumes",
        ),
        (
            DOMAIN,
            &plain.replace(r#""multus":{"networkName":"fast"}"#, r#""pod":{}"#),
            Code::FailedPrecondition,
            "secondary network",
        ),
    ] {
        let error = manager.on_define_domain(xml, vmi).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(says), "{error}");
    }
    manager.on_define_domain(DOMAIN, &plain).await.unwrap();
    assert!(sidecar.runs());
}

/// virt-launcher asks with a null pointer where a VM has no cloud-init volume, and crashes: only those subscribe who mean it.
#[tokio::test]
async fn cloud_init_is_told_only_by_a_binding_that_is_named_so() {
    let pod = Pod::new();
    let _sidecar = Sidecar::start(&pod, 0, &["--binding", "vhostuser-cloudinit"]);
    let manager = collect(&pod, 1).await;
    let sent = || CloudInit {
        data: json!({"UserData": "x", "NetworkData": "", "NoCloudMetaData": {}})
            .to_string()
            .into(),
        no_cloud: json!({"userData": "x"}).to_string().into(),
    };
    let plain = vmi(Value::Null).replace("\"vhostuser\"", "\"vhostuser-cloudinit\"");
    assert_eq!(
        manager.pre_cloud_init_iso(sent(), &plain).await.unwrap(),
        sent()
    );
    let asked = r#"{"net1": {"addresses": ["10.9.0.5/24"]}}"#;
    let asking = vmi(json!({"iaas.yusur.io/cloud-init-network": asked}))
        .replace("\"vhostuser\"", "\"vhostuser-cloudinit\"");
    for version in ["v1alpha2", "v1alpha3"] {
        let told = manager
            .speaking(version)
            .pre_cloud_init_iso(sent(), &asking)
            .await
            .unwrap();
        let data: Value = serde_json::from_slice(&told.data).unwrap();
        assert!(
            data["NetworkData"]
                .as_str()
                .unwrap()
                .contains("10.9.0.5/24"),
            "{data}"
        );
        assert_eq!(data["UserData"], "x");
    }
    let other = asking.replace("net1\\\":", "net9\\\":");
    let error = manager
        .pre_cloud_init_iso(sent(), &other)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_call_that_waits() {
    let pod = Pod::new();
    pod.directory("podinfo");
    let mut sidecar = Sidecar::start(&pod, 0, &[]);
    let manager = collect(&pod, 1).await;
    let vmi = vmi(Value::Null);
    let calling = manager.on_define_domain(DOMAIN, &vmi);
    let ending = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        manager.shutdown().await.unwrap();
        sidecar.ended().await
    };
    let (answer, ended) = tokio::join!(calling, ending);
    assert!(answer.is_err());
    assert_eq!(ended.code(), Some(0));
}

#[tokio::test]
async fn sigterm_is_an_end_too() {
    let pod = Pod::new();
    let mut sidecar = Sidecar::start(&pod, 0, &[]);
    collect(&pod, 1).await;
    sidecar.terminate();
    assert_eq!(sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_launcher_that_goes_without_a_word_is_noticed() {
    let pod = Pod::new();
    let path = pod.path("launcher-init-sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut sidecar = Sidecar::start(&pod, 0, &["--launcher-socket", path.to_str().unwrap()]);
    let manager = collect(&pod, 1).await;
    // Some looks later.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(sidecar.runs(), "its launcher is there");
    // KubeVirt renames it when it is ready; in the kernel's list it keeps the name that it was bound to.
    pod.rename("launcher-init-sock", "launcher-sock");
    drop(manager);
    drop(listener);
    assert!(sidecar.ended().await.success());
    assert!(sidecar.log().contains("virt-launcher is gone"));
}

#[tokio::test]
async fn log_lines_can_be_json() {
    let pod = Pod::new();
    let mut sidecar = Sidecar::start(&pod, 0, &["--log-format", "json"]);
    let manager = collect(&pod, 1).await;
    manager
        .on_define_domain(DOMAIN, &vmi(Value::Null))
        .await
        .unwrap();
    sidecar.terminate();
    sidecar.ended().await;
    let log = sidecar.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let done = lines.iter().find(|l| l["op"] == "OnDefineDomain").unwrap();
    assert_eq!(
        (&done["vm"], &done["uid"]),
        (&json!("shop/db"), &json!("u-1"))
    );
    let nic = lines.iter().find(|l| l["network"] == "net1").unwrap();
    assert_eq!(
        (&nic["path"], &nic["ifname"]),
        (&json!(SOCKET), &json!("pod6c270ef2f25"))
    );
}

#[tokio::test]
async fn wrong_flags_end_with_their_own_code_and_help_says_what_each_does() {
    for (arguments, code) in [
        (&["--wait", "2 weeks"][..], 64),
        (&["--binding", "../x"], 64),
        (&["--nonsense"], 64),
        (&["--help"], 0),
        (&["--version"], 0),
    ] {
        let pod = Pod::new();
        let mut sidecar = Sidecar::start(&pod, 0, arguments);
        assert_eq!(sidecar.ended().await.code(), Some(code), "{arguments:?}");
    }
    let pod = Pod::new();
    let mut sidecar = Sidecar::start(&pod, 0, &["--help"]);
    sidecar.ended().await;
    let help = sidecar.output();
    for word in [
        "NETWORK_BINDING_PLUGIN_NAME",
        "CONTAINER_NAME",
        "network-info",
        "-cloudinit",
        "50s",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
