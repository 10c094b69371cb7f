//! Two cni-controllers as they are installed: one killed, one that sleeps while it leads.

use crate::server::Server;
use crate::site::{DEADLINE, LEADER, Space, site};
use crate::world::View;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use tempfile::TempDir;

/// A running cni-controller; killed with the value.
struct Process {
    name: &'static str,
    child: Child,
    said: mpsc::Receiver<String>,
}

struct Cluster {
    dir: TempDir,
    nb: Server,
}

impl Cluster {
    fn kubeconfig(&self, url: &str) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
             clusters: [{{name: test, cluster: {{server: \"{url}\", insecure-skip-tls-verify: true}}}}]\n\
             users: [{{name: test, user: {{token: controller}}}}]\n\
             contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn start(&self, name: &'static str, url: &str) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cni-controller"))
            .arg(format!("--nb={}", self.nb.remote()))
            .args(["--lease-seconds=3", "--admin-address=127.0.0.1:0"])
            .args(["--join-cidr=100.64.0.0/16", "--service-cidr=10.96.0.0/16"])
            .env("KUBECONFIG", self.kubeconfig(url))
            .env("POD_NAME", name)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        let (sender, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Process { name, child, said }
    }
}

impl Process {
    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    /// Reads its log until it says one of these.
    fn says(&self, words: &[&str]) {
        let mut all = String::new();
        loop {
            let line = self.said.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|_| panic!("{} never said {words:?}: {all}", self.name));
            if words.iter().any(|word| line.contains(word)) {
                return;
            }
            all.push_str(&line);
            all.push('\n');
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn owner(view: &View, is: &str) {
    let what = format!("the database is that of {is}");
    let owner = |view: &View| view.global("outboard-owner");
    let has = |view: &View| {
        let owner = owner(view)?;
        let (identity, epoch) = owner.rsplit_once('/')?;
        let (pod, _) = identity.rsplit_once('_')?;
        (format!("{pod}/{epoch}") == is).then_some(())
    };
    view.until(&what, has).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_sleeps_or_dies_is_replaced_and_writes_no_more() {
    let _leader = LEADER.lock().await;
    let site = site();
    let space = Space::create(site.admin()).await;
    let url = site.server.url();
    let cluster = Cluster {
        dir: tempfile::tempdir().unwrap(),
        nb: Server::northbound(),
    };
    let view = View::of(&cluster.nb).await;
    let port = async |pod: &str| {
        let name = format!("{}/{pod}/default", space.name);
        let address = |view: &View| Some(view.ports().get(&name)?.ips[0].to_string());
        view.until(&name, address).await
    };
    let mut addresses = BTreeSet::new();

    let mut first = cluster.start("first", &url);
    owner(&view, "first/1").await;
    space.pod("one").await;
    addresses.insert(port("one").await);
    let second = cluster.start("second", &url);

    // It sleeps while it leads; what happens meanwhile waits for it in its sockets.
    first.signal("-STOP");
    space.pod("two").await;
    owner(&view, "second/2").await;
    addresses.insert(port("two").await);
    space.delete("one").await;
    space.pod("three").await;
    addresses.insert(port("three").await);
    first.signal("-CONT");
    // By the Lease or by the database, whichever it looks at first.
    tokio::task::block_in_place(|| {
        first.says(&["the Lease is lost", "fenced off"]);
    });
    space.pod("four").await;
    addresses.insert(port("four").await);
    owner(&view, "second/2").await;

    // The other one dies, and it leads again.
    drop(second);
    owner(&view, "first/3").await;
    space.pod("five").await;
    addresses.insert(port("five").await);
    assert_eq!(
        addresses.len(),
        5,
        "an address was given out twice: {addresses:?}"
    );

    // It is told to end: the next one need not wait.
    first.signal("-TERM");
    assert!(
        tokio::task::block_in_place(|| first.child.wait())
            .unwrap()
            .success()
    );
    let _third = cluster.start("third", &url);
    owner(&view, "third/4").await;
}
