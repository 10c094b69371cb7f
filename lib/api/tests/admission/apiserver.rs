//! A real kube-apiserver with etcd, in a directory and on ports of its own.

use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Tokens and the users behind them: an administrator, the controller, somebody.
const TOKENS: &str = "admin,admin,1,system:masters
controller,system:serviceaccount:outboard-system:cni-controller,2,system:serviceaccounts
somebody,somebody,3,developers
";

pub(crate) struct ApiServer {
    port: u16,
    process: Child,
    /// Ends after the server does.
    store: Arc<Store>,
}

/// An etcd, and what all servers in front of it share.
struct Store {
    dir: TempDir,
    bin: PathBuf,
    clients: u16,
    process: Child,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With further flags.
    pub(crate) fn with(flags: &[&str]) -> Self {
        Self::before(Arc::new(Store::start()), flags)
    }

    /// Another server in front of the same etcd, with a watch cache that begins now.
    #[allow(dead_code, reason = "not every test that has this file needs it")]
    pub(crate) fn beside(&self) -> Self {
        Self::before(self.store.clone(), &[])
    }

    fn before(store: Arc<Store>, flags: &[&str]) -> Self {
        let port = free_ports::<1>()[0];
        let file = |name: &str| store.file(name);
        let mut arguments: Vec<String> = flags.iter().map(ToString::to_string).collect();
        arguments.extend([
            format!("--etcd-servers={}", store.url()),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--cert-dir={}", file(&format!("certificates-{port}"))),
            format!("--service-account-key-file={}", file("sa.key")),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            "--service-account-issuer=https://test.invalid".to_owned(),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--allow-privileged".to_owned(),
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]);
        let process = store.spawn(
            &store.bin.join("kube-apiserver"),
            &format!("apiserver-{port}.log"),
            &arguments,
        );
        let server = Self {
            port,
            process,
            store,
        };
        server.eventually("the API server to be ready", |s| {
            s.kubectl("admin", &["get", "--raw=/readyz"], "").is_ok()
        });
        server
    }

    /// Asks until the answer is yes; each question takes a process and so a little time.
    pub(crate) fn eventually(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done(self) {
            let log = self.store.file(&format!("apiserver-{}.log", self.port));
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; {}",
                std::fs::read_to_string(log).unwrap_or_default()
            );
        }
    }

    /// What kubectl prints, or why it fails.
    pub(crate) fn kubectl(
        &self,
        token: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, String> {
        let mut child = Command::new(self.store.bin.join("kubectl"))
            .arg(format!("--server={}", self.url()))
            .args(["--insecure-skip-tls-verify", &format!("--token={token}")])
            .args(arguments)
            .env_remove("KUBECONFIG")
            .env("HOME", self.store.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            Ok(text(&output.stdout))
        } else {
            Err(text(&output.stderr))
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Where etcd serves, without TLS.
    #[allow(dead_code, reason = "not every test that has this file needs it")]
    pub(crate) fn etcd_url(&self) -> String {
        self.store.url()
    }
}

impl Store {
    fn start() -> Self {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .unwrap();
        let setup = checkout.join("e2e/tools/setup.sh");
        let printed = Command::new(setup).arg("--print-bin").output().unwrap();
        let bin = PathBuf::from(String::from_utf8(printed.stdout).unwrap().trim());
        assert!(
            bin.join("kube-apiserver").exists(),
            "no kube-apiserver in {}: run `make setup`",
            bin.display()
        );
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).display().to_string();
        std::fs::write(dir.path().join("tokens.csv"), TOKENS).unwrap();
        let key = Command::new("openssl")
            .args(["genrsa", "-out", &file("sa.key"), "2048"])
            .output();
        assert!(
            key.is_ok_and(|made| made.status.success()),
            "no openssl: run `make setup`"
        );
        let [clients, peers] = free_ports();
        let process = spawn(
            Path::new("etcd"),
            &dir.path().join("etcd.log"),
            &[
                format!("--data-dir={}", file("etcd")),
                format!("--listen-client-urls=http://127.0.0.1:{clients}"),
                format!("--advertise-client-urls=http://127.0.0.1:{clients}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
                "--unsafe-no-fsync".to_owned(),
            ],
        );
        Self {
            dir,
            bin,
            clients,
            process,
        }
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.clients)
    }

    fn spawn(&self, program: &Path, log: &str, arguments: &[String]) -> Child {
        spawn(program, &self.dir.path().join(log), arguments)
    }
}

/// All are held until all are known: no two are the same.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

fn spawn(program: &Path, log: &Path, arguments: &[String]) -> Child {
    let log = std::fs::File::create(log).unwrap();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    command
        .spawn()
        .unwrap_or_else(|e| panic!("{}: {e}; run `make setup`", program.display()))
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
