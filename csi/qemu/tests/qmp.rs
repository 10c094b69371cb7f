//! The client against a real qemu-storage-daemon and a real QEMU.
#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::time::Duration;

use qemu::commands::*;
use qemu::{Command as _, Create, Error, EventsLost, Image, Qmp, Step};
use serde_json::json;
use support::{Certificates, Program, nbd_read, soon};

async fn daemon(dir: &std::path::Path) -> (Program, Qmp) {
    let program = Program::storage_daemon(dir, "qmp.sock");
    let qmp = program.connect().await;
    (program, qmp)
}

#[tokio::test]
async fn commands_in_flight_get_their_own_answers() {
    let home = tempfile::tempdir().unwrap();
    let (_program, qmp) = daemon(home.path()).await;
    assert!(
        qmp.version().qemu.major >= 8,
        "{:?}: run `make setup`",
        qmp.version()
    );
    let calls = (0..200u64).map(|n| {
        let qmp = qmp.clone();
        tokio::spawn(async move {
            let node = Node::new(format!("n{n}"), Driver::NullCo { size: n << 20 });
            qmp.execute(&BlockdevAdd(node), soon()).await.unwrap();
            if n % 2 == 0 {
                qmp.execute(&QueryVersion {}, soon()).await.unwrap();
            }
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    let flat = QueryNamedBlockNodes { flat: Some(true) };
    let nodes = qmp.execute(&flat, soon()).await.unwrap();
    assert_eq!(nodes.len(), 200);
    for node in nodes {
        let n: u64 = node.node_name[1..].parse().unwrap();
        assert_eq!(node.image.virtual_size, n << 20);
    }
    assert_eq!(qmp.execute(&QueryBlock {}, soon()).await.unwrap().len(), 0);
}

#[tokio::test]
async fn every_kind_of_failure_is_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let missing = Qmp::connect(home.path().join("qmp.sock"), soon()).await;
    assert!(
        matches!(missing, Err(Error::Unreachable { .. })),
        "{missing:?}"
    );
    let (mut program, qmp) = daemon(home.path()).await;
    let unknown = qmp.execute(&QueryStatus {}, soon()).await.unwrap_err();
    assert!(unknown.is_unknown_command(), "{unknown}");
    let refused = qmp
        .execute(
            &BlockdevDel {
                node_name: "x".into(),
            },
            soon(),
        )
        .await
        .unwrap_err();
    assert!(
        refused.says("Failed to find node with node-name='x'"),
        "{refused}"
    );
    assert!(
        refused.to_string().starts_with("blockdev-del was refused"),
        "{refused}"
    );

    // A monitor serves one client at a time.
    let soon_enough = tokio::time::Instant::now() + Duration::from_millis(100);
    let second = Qmp::connect(qmp.socket(), soon_enough).await.unwrap_err();
    assert!(second.to_string().contains("another client"), "{second}");
    let waiting = tokio::spawn({
        let socket = qmp.socket().to_owned();
        async move { Qmp::connect(socket, soon()).await }
    });
    drop(qmp);
    let qmp = waiting.await.unwrap().unwrap();

    let mut events = qmp.events();
    program.stop();
    let sent = qmp.execute(
        &QueryVersion {},
        tokio::time::Instant::now() + Duration::from_millis(50),
    );
    assert!(matches!(sent.await, Err(Error::UnknownOutcome { .. })));
    let sent = tokio::spawn({
        let qmp = qmp.clone();
        async move { qmp.execute(&QueryVersion {}, soon()).await }
    });
    tokio::task::yield_now().await;
    program.kill();
    let lost = sent.await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::UnknownOutcome { .. }), "{lost}");
    assert_eq!(events.next().await, Err(EventsLost::Ended));
    let late = qmp.execute(&QueryVersion {}, soon()).await.unwrap_err();
    assert!(matches!(late, Error::NotSent { .. }), "{late}");
}

#[tokio::test]
async fn an_overlay_is_put_on_and_merged_again() {
    let home = tempfile::tempdir().unwrap();
    let (base, top) = (
        home.path().join("base.qcow2"),
        home.path().join("top.qcow2"),
    );
    let image = Image::default();
    image
        .create(&base, &Create::blank(64 << 20), soon())
        .await
        .unwrap();
    image
        .create(&top, &Create::over(&base), soon())
        .await
        .unwrap();
    let (_program, qmp) = daemon(home.path()).await;
    let file = |name, path| Node::file(name, path).direct().aio(Aio::IoUring);
    let node = Node::qcow2("base", file("base-file", &base)).thin();
    qmp.execute(&BlockdevAdd(node), soon()).await.unwrap();
    let throttle = ObjectAdd {
        id: "limits".into(),
        object: Object::ThrottleGroup {
            limits: Limits::default(),
        },
    };
    qmp.execute(&throttle, soon()).await.unwrap();
    let filter = Node::throttle("filter", "limits", "base");
    qmp.execute(&BlockdevAdd(filter), soon()).await.unwrap();
    let limits = Limits {
        iops_total: Some(100),
        ..Limits::default()
    };
    qmp.execute(&QomSet::limits("limits", &limits), soon())
        .await
        .unwrap();
    let get = QomGet {
        path: "/objects/limits".into(),
        property: "limits".into(),
    };
    let now = qmp.execute(&get, soon()).await.unwrap();
    assert_eq!(now["iops-total"], json!(100));
    qmp.execute(&QomSet::limits("limits", &Limits::default()), soon())
        .await
        .unwrap();
    assert_eq!(
        qmp.execute(&get, soon()).await.unwrap()["iops-total"],
        json!(0)
    );

    let node = Node::qcow2("top", file("top-file", &top)).thin().over(None);
    qmp.execute(&BlockdevAdd(node), soon()).await.unwrap();
    let snapshot = BlockdevSnapshot {
        node: "base".into(),
        overlay: "top".into(),
    };
    let add = |name: &str| BlockDirtyBitmapAdd {
        node: "base".into(),
        name: name.into(),
        granularity: None,
        persistent: None,
        disabled: Some(true),
    };
    // All or nothing.
    let undone = Transaction {
        actions: vec![
            Action::BlockdevSnapshot(snapshot.clone()),
            Action::BlockDirtyBitmapAdd(add("b")),
            Action::Abort {},
        ],
    };
    qmp.execute(&undone, soon()).await.unwrap_err();
    let done = Transaction {
        actions: vec![Action::BlockdevSnapshot(snapshot)],
    };
    qmp.execute(&done, soon()).await.unwrap();
    let commit = BlockCommit {
        job_id: "merge".into(),
        device: "filter".into(),
        top_node: Some("top".into()),
        base_node: Some("base".into()),
        backing_file: None,
        speed: None,
        filter_node_name: None,
        auto_dismiss: false,
    };
    qmp.execute(&commit, soon()).await.unwrap();
    qmp.finish_job("merge", soon()).await.unwrap();
    assert_eq!(qmp.execute(&QueryJobs {}, soon()).await.unwrap(), []);
    let gone = qmp.finish_job("merge", soon()).await.unwrap_err();
    assert!(matches!(gone, Error::Job { .. }), "{gone}");
    // The merged image is out of use, and still open over the other one.
    let del = BlockdevDel {
        node_name: "top".into(),
    };
    qmp.execute(&del, soon()).await.unwrap();
    qmp.execute(
        &BlockResize {
            node_name: "base".into(),
            size: 128 << 20,
        },
        soon(),
    )
    .await
    .unwrap();
    let shared = image.info(&base, true, soon()).await.unwrap();
    assert_eq!(shared.virtual_size, 128 << 20);
}

#[tokio::test]
async fn an_export_is_for_named_clients_and_is_cut_off() {
    let home = tempfile::tempdir().unwrap();
    let certificates = Certificates::make(home.path());
    let (_program, qmp) = daemon(home.path()).await;
    let node = Node::new("disk", Driver::NullCo { size: 1 << 20 });
    qmp.execute(&BlockdevAdd(node), soon()).await.unwrap();
    let tls = Object::TlsCredsX509 {
        endpoint: Endpoint::Server,
        dir: certificates.server.clone(),
        verify_peer: Some(true),
    };
    qmp.execute(
        &ObjectAdd {
            id: "tls".into(),
            object: tls,
        },
        soon(),
    )
    .await
    .unwrap();
    let rule = |name: &str| Rule {
        identity: format!("CN={name}"),
        policy: Policy::Allow,
        format: Format::Exact,
    };
    let authz = Object::AuthzList {
        policy: Policy::Deny,
        rules: vec![rule("host-1")],
    };
    qmp.execute(
        &ObjectAdd {
            id: "who".into(),
            object: authz,
        },
        soon(),
    )
    .await
    .unwrap();
    let port = support::free_port();
    let start = NbdServerStart {
        addr: Address::Inet {
            host: "127.0.0.1".into(),
            port: port.to_string(),
        },
        tls_creds: Some("tls".into()),
        tls_authz: Some("who".into()),
        max_connections: Some(0),
    };
    qmp.execute(&start, soon()).await.unwrap();
    let export = BlockExportAdd {
        id: "export".into(),
        node_name: "disk".into(),
        kind: Export::Nbd {
            name: Some("vol".into()),
        },
        writable: Some(true),
        writethrough: None,
        iothread: None,
    };
    qmp.execute(&export, soon()).await.unwrap();
    assert!(nbd_read(port, Some(&certificates.clients[0])));
    assert!(!nbd_read(port, Some(&certificates.clients[1])));
    assert!(!nbd_read(port, None));
    let rules = QomSet {
        path: "/objects/who".into(),
        property: "rules".into(),
        value: serde_json::to_value([rule("host-2")]).unwrap(),
    };
    qmp.execute(&rules, soon()).await.unwrap();
    assert!(!nbd_read(port, Some(&certificates.clients[0])));
    assert!(nbd_read(port, Some(&certificates.clients[1])));

    // An NBD export forbids a new size; without it there is no objection.
    let resize = BlockResize {
        node_name: "disk".into(),
        size: 2 << 20,
    };
    let refused = qmp.execute(&resize, soon()).await.unwrap_err();
    assert!(
        refused.says("Permission conflict on node 'disk'"),
        "{refused}"
    );
    let mut events = qmp.events();
    let del = BlockExportDel {
        id: "export".into(),
        mode: Some(RemoveMode::Hard),
    };
    qmp.execute(&del, soon()).await.unwrap();
    let gone = events.wait_for(|event| event.is("BLOCK_EXPORT_DELETED", "id", "export"));
    tokio::time::timeout_at(soon(), gone)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        qmp.execute(&QueryBlockExports {}, soon()).await.unwrap(),
        []
    );
    qmp.execute(&NbdServerStop {}, soon()).await.unwrap();
    qmp.execute(&Quit {}, soon()).await.unwrap();
}

#[tokio::test]
async fn a_function_is_plugged_into_a_machine() {
    let home = tempfile::tempdir().unwrap();
    let program = Program::machine(home.path(), "qmp.sock");
    let qmp = program.connect().await;
    assert_eq!(
        qmp.execute(&QueryStatus {}, soon()).await.unwrap().status,
        "prelaunch"
    );
    let node = Node::new("disk", Driver::NullCo { size: 1 << 20 });
    qmp.execute(&BlockdevAdd(node), soon()).await.unwrap();
    let properties = [("drive", "disk"), ("serial", "s1")];
    let device = DeviceAdd {
        driver: "nvme".into(),
        id: "nvme1".into(),
        bus: Some("rp1".into()),
        properties: properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect(),
    };
    qmp.execute(&device, soon()).await.unwrap();
    let resume: Step = serde_json::from_value(json!({"execute": "cont"})).unwrap();
    qmp.run(&resume, soon()).await.unwrap();
    // What is behind a port is told once the firmware has numbered the port's bus.
    let deadline = soon();
    loop {
        let buses = qmp.execute(&QueryPci {}, deadline).await.unwrap();
        assert!(buses.iter().all(|bus| bus.find("other").is_none()));
        if let Some(found) = buses.iter().find_map(|bus| bus.find("nvme1")) {
            assert_eq!((found.slot, found.function), (0, 0));
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let chardev = ChardevAdd {
        id: "vu".into(),
        backend: ChardevSocket {
            path: home.path().join("vu.sock"),
            server: true,
            reconnect_ms: 0,
        },
    };
    qmp.execute(&chardev, soon()).await.unwrap();
    let chardevs = qmp.execute(&QueryChardev {}, soon()).await.unwrap();
    let is_disconnected = |label: &str| {
        let mut found = chardevs.iter().filter(|found| found.label == label);
        found.any(ChardevInfo::is_disconnected)
    };
    assert!(is_disconnected("vu"), "{chardevs:?}");
    let monitor = chardevs.iter().filter(|found| found.label != "vu");
    assert_eq!(monitor.filter(|found| found.is_disconnected()).count(), 0);
    qmp.execute(&ChardevRemove { id: "vu".into() }, soon())
        .await
        .unwrap();
    let again = qmp.execute(&device, soon()).await.unwrap_err();
    assert!(again.says("Duplicate device ID 'nvme1'"), "{again}");
    qmp.execute(&Quit {}, soon()).await.unwrap();
}

#[tokio::test]
async fn a_stored_step_is_run_as_it_was_given_and_never_printed() {
    let home = tempfile::tempdir().unwrap();
    let (_program, qmp) = daemon(home.path()).await;
    let node = Node::new("n", Driver::NullCo { size: 1 });
    let step = BlockdevAdd(node).step().unwrap();
    let text = serde_json::to_string(&step).unwrap();
    let step: Step = serde_json::from_str(&text).unwrap();
    qmp.run(&step, soon()).await.unwrap();
    let nodes = qmp
        .execute(&QueryNamedBlockNodes { flat: None }, soon())
        .await
        .unwrap();
    assert_eq!(nodes[0].node_name, "n");
    let secret: Step = serde_json::from_value(
        json!({"execute": "object-add", "arguments": {"qom-type": "secret", "id": "s", "data": "marker"}}),
    )
    .unwrap();
    assert_eq!(
        format!("{secret:?} {secret}"),
        "Step(object-add s) object-add s"
    );
}
