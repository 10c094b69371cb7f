//! A test in namespaces of its own: network, mounts, processes. The kernel takes all of it back when the test ends, however it ends.

use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use crate::netns::Netns;

const MARK: &str = "OUTBOARD_TEST_SANDBOX";

/// Runs `body` in a sandbox. `test` is the full name of the calling test, without the crate.
pub(crate) fn sandboxed(test: &str, body: impl Future<Output = ()>) {
    if std::env::var_os(MARK).is_some() {
        sh("mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        return runtime.block_on(body);
    }
    let output = Command::new("unshare")
        .args([
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .output()
        .expect("unshare of util-linux runs (make setup); this test needs root");
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(
        output.status.success(),
        "{test} in its sandbox:\n{}\n{}",
        said[0],
        said[1]
    );
    assert!(
        said[0].contains("1 passed"),
        "no test is called {test}: {}",
        said[0]
    );
}

/// Runs a shell script; its output.
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until `holds`, at most 60 s.
pub(crate) async fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(Duration::from_secs(60), what, holds).await;
}

/// Waits until `holds`, at most 8 s: less than a third of the period at which the loops look by themselves.
pub(crate) async fn soon(what: &str, holds: impl FnMut() -> bool) {
    within(Duration::from_secs(8), what, holds).await;
}

async fn within(patience: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(
            Instant::now() < deadline,
            "{what} did not come true within {} s",
            patience.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A network namespace of the sandbox; `""` is the sandbox's own.
fn netns(name: &str) -> Netns {
    if name.is_empty() {
        return Netns::host().unwrap();
    }
    Netns::of_pod(&Path::new("/run/netns").join(name)).unwrap()
}

/// A server in a namespace that tells every client its own name and the client's address as seen there.
pub(crate) async fn serve(name: &'static str, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = netns(name)
        .run(move || TcpListener::bind(address).unwrap())
        .await
        .unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            // A client that went away has its answer in the assertion.
            let _ = write!(stream, "{address} {peer}");
        }
    });
}

/// What the server behind `address` says to a client in namespace `name`.
pub(crate) async fn ask(name: &str, address: &str) -> Result<String, String> {
    let address: SocketAddr = address.parse().unwrap();
    netns(name)
        .run(move || {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
                .map_err(|error| format!("connect to {address}: {error}"))?;
            stream
                .set_read_timeout(Some(Duration::from_secs(5)))
                .unwrap();
            let mut said = String::new();
            stream
                .read_to_string(&mut said)
                .map_err(|error| format!("read from {address}: {error}"))?;
            Ok(said)
        })
        .await
        .unwrap()
}

/// A link `uplink` with 198.18.0.1/24 and fd12::1/64 that leads to namespace `outside` (…2).
pub(crate) fn uplink() {
    sh("ip netns add outside
        ip link add uplink type veth peer name eth0 netns outside
        ip addr add 198.18.0.1/24 dev uplink
        ip addr add fd12::1/64 dev uplink nodad
        ip link set uplink up
        ip -n outside link set lo up
        ip -n outside addr add 198.18.0.2/24 dev eth0
        ip -n outside addr add fd12::2/64 dev eth0 nodad
        ip -n outside link set eth0 up");
}
