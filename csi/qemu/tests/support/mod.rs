//! Programs to talk to, in a directory of the test's own.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use qemu::Qmp;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use tokio::time::Instant;

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

pub(crate) struct Program {
    child: Child,
    socket: PathBuf,
}

impl Program {
    pub(crate) fn storage_daemon(dir: &Path, socket: &str) -> Self {
        let mut command = Command::new("qemu-storage-daemon");
        Program::start(&mut command, &dir.join(socket))
    }

    /// A machine that does not run, with one free root port.
    pub(crate) fn machine(dir: &Path, socket: &str) -> Self {
        let mut command = Command::new("qemu-system-x86_64");
        command.args([
            "-S",
            "-nodefaults",
            "-display",
            "none",
            "-machine",
            "q35,accel=tcg",
            "-m",
            "64",
        ]);
        command.args(["-device", "pcie-root-port,id=rp1,slot=1"]);
        Program::start(&mut command, &dir.join(socket))
    }

    fn start(command: &mut Command, socket: &Path) -> Self {
        let chardev = format!("socket,id=qmp,path={},server=on,wait=off", socket.display());
        if command.get_program() == "qemu-storage-daemon" {
            command.args(["--chardev", &chardev, "--monitor", "chardev=qmp"]);
        } else {
            command.args(["-chardev", &chardev, "-mon", "chardev=qmp,mode=control"]);
        }
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .expect("qemu is missing: run `make setup`");
        Program {
            child,
            socket: socket.to_owned(),
        }
    }

    /// Connects once it listens.
    pub(crate) async fn connect(&self) -> Qmp {
        let deadline = soon();
        loop {
            match Qmp::connect(&self.socket, deadline).await {
                Ok(qmp) => return qmp,
                Err(why) => assert!(Instant::now() < deadline, "{why}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// SIGSTOP: it answers no more.
    pub(crate) fn stop(&self) {
        let pid = self.child.id().to_string();
        let stopped = Command::new("kill").args(["-STOP", &pid]).status().unwrap();
        assert!(stopped.success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Whether a client with this certificate can read.
pub(crate) fn nbd_read(port: u16, certificate: Option<&Path>) -> bool {
    let mut command = Command::new("qemu-io");
    let mut options =
        format!("driver=nbd,server.type=inet,server.host=127.0.0.1,server.port={port},export=vol");
    if let Some(dir) = certificate {
        let object = format!(
            "tls-creds-x509,id=tls,endpoint=client,dir={}",
            dir.display()
        );
        command.args(["--object", &object]);
        options += ",tls-creds=tls";
    }
    let done = command
        .args(["-c", "read 0 4k", "--image-opts", &options])
        .output()
        .unwrap();
    done.status.success()
}

/// Directories of certificates: a server, and the clients `host-1` and `host-2`.
pub(crate) struct Certificates {
    pub(crate) server: PathBuf,
    pub(crate) clients: [PathBuf; 2],
}

impl Certificates {
    pub(crate) fn make(home: &Path) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let leaf = |name: &str, side: &str, purpose: ExtendedKeyUsagePurpose| {
            let mut params =
                CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyEncipherment,
            ];
            params.extended_key_usages = vec![purpose];
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            let dir = home.join(name);
            std::fs::create_dir(&dir).unwrap();
            let write = |file: String, text: String| {
                let mut file = std::fs::File::create(dir.join(file)).unwrap();
                file.write_all(text.as_bytes()).unwrap();
            };
            write("ca-cert.pem".into(), ca.pem());
            write(format!("{side}-cert.pem"), certificate.pem());
            write(format!("{side}-key.pem"), key.serialize_pem());
            dir
        };
        Certificates {
            server: leaf("server", "server", ExtendedKeyUsagePurpose::ServerAuth),
            clients: [
                leaf("host-1", "client", ExtendedKeyUsagePurpose::ClientAuth),
                leaf("host-2", "client", ExtendedKeyUsagePurpose::ClientAuth),
            ],
        }
    }
}
