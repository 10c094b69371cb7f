//! The socket, and a node on which nothing else runs yet.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use cni_bin::code;
use cni_bin::wire::{Command, Failure, Reply, Request};
use ovsdb::{Client, Config, Remote};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::netns::Netns;
use crate::node::Node;
use crate::ovn_controller::OvnController;
use crate::server;
use crate::southbound::Southbound;
use crate::store::Store;
use crate::testing::run;
use crate::vswitch::Vswitch;
use daemon::keyed::Locks;

/// A node without any database.
fn bare(home: &Path, recovered: bool) -> Arc<Node> {
    let absent = Remote::Unix(home.join("absent.sock"));
    let client = |database: &str| Client::start(Config::new(database, vec![absent.clone()]));
    Arc::new(Node {
        host: Netns::host().unwrap(),
        southbound: Southbound::new(client("OVN_Southbound"), "n1"),
        vswitch: Vswitch::new(client("Open_vSwitch"), "system"),
        ovn_controller: OvnController::new(home),
        store: Store::open(&home.join("journal"), "this-boot").unwrap(),
        locks: Locks::default(),
        under_way: crate::under_way::UnderWay::default(),
        mtu: watch::channel(None).1,
        recovered: watch::channel(recovered).1,
        metrics: Metrics::register(&mut Registry::default()),
        vhost: super::world::vhost(home),
    })
}

fn request(command: Command) -> Request {
    let env = [
        ("CNI_CONTAINERID", "c1"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_NETNS", "/run/netns/absent"),
        (
            "CNI_ARGS",
            "K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=u1",
        ),
    ];
    Request {
        version: cni_bin::wire::VERSION,
        command,
        env: BTreeMap::from(env.map(|(name, value)| (name.to_owned(), value.to_owned()))),
        config: r#"{"cniVersion":"1.1.0","name":"pods","type":"outboard"}"#.to_owned(),
        deadline_ms: 300,
    }
}

async fn exchange(socket: &Path, bytes: &[u8]) -> Reply {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    Reply::decode(&answer).unwrap()
}

fn failure(reply: Reply) -> Failure {
    match reply {
        Reply::Error(failure) => failure,
        Reply::Result(result) => panic!("{result:?}"),
    }
}

#[tokio::test]
async fn a_bare_node_says_what_is_missing_and_serves_del() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/cni.sock");
    let socket = daemon::socket::bind(&path).unwrap();
    let stop = CancellationToken::new();
    let node = bare(home.path(), false);
    let server = tokio::spawn(server::run(Arc::clone(&node), socket, stop.clone()));

    let ask = async |command| exchange(&path, &request(command).encode().unwrap()).await;
    let status = failure(ask(Command::Status).await);
    assert_eq!(status.code, code::NOT_AVAILABLE);
    for part in [
        "southbound database",
        "Open vSwitch database",
        "ovn-controller does not answer",
        "MTU",
    ] {
        assert!(status.msg.contains(part), "{part}: {status}");
    }
    let add = failure(ask(Command::Add).await);
    assert_eq!(
        (add.code, add.cni_version.as_str()),
        (code::TRY_AGAIN_LATER, "1.1.0")
    );
    assert!(
        add.msg.contains("Open vSwitch database cannot be used"),
        "{add}"
    );
    // No database, no namespace, no port, no record: there is nothing to undo.
    assert!(matches!(ask(Command::Del).await, Reply::Result(None)));

    let garbage = failure(exchange(&path, b"{").await);
    assert_eq!(garbage.code, code::DECODING_FAILURE, "{garbage}");
    assert!(garbage.details.contains("one release"), "{garbage}");
    // A client that goes away harms nobody.
    drop(UnixStream::connect(&path).await.unwrap());

    // The directory keeps others out already; were it opened, the caller's identity would.
    for (path, mode) in [
        (path.parent().unwrap(), 0o755),
        (&path, 0o666),
        (home.path(), 0o755),
    ] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let program = format!(
        "use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => '{}') or die $!; print {{$s}} '{{}}'; $s->shutdown(1); print <$s>",
        path.display()
    );
    let answer = tokio::task::spawn_blocking(move || {
        run(&[
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            "perl",
            "-e",
            &program,
        ])
    });
    let refused = failure(Reply::decode(answer.await.unwrap().as_bytes()).unwrap());
    assert!(refused.msg.contains("called by user 65534"), "{refused}");

    stop.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn an_operation_under_way_is_ended_before_the_server() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/cni.sock");
    let socket = daemon::socket::bind(&path).unwrap();
    let stop = CancellationToken::new();
    let server = tokio::spawn(server::run(bare(home.path(), false), socket, stop.clone()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(&request(Command::Add).encode().unwrap())
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    // Connections are accepted in their order: after this one's answer the first one is under way.
    exchange(&path, b"{").await;
    stop.cancel();
    server.await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(
        failure(Reply::decode(&answer).unwrap()).code,
        code::TRY_AGAIN_LATER
    );
}
