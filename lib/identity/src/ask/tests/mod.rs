//! The whole of the asking half against a server that speaks the certificates API.

mod apiserver;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use rcgen::{CertificateParams, KeyPair};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use self::apiserver::{ApiServer, Signer};
use super::*;
use crate::{CHASSIS, STORAGE_NODE};

/// Asks until it holds, for twenty seconds.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not in twenty seconds: {what}");
}

struct Node {
    home: tempfile::TempDir,
    profile: Profile,
}

impl Node {
    fn new() -> Self {
        Self::with(CHASSIS)
    }

    fn with(profile: Profile) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("bundle.crt"), "first bundle").unwrap();
        Self { home, profile }
    }

    /// Of the chassis n1.
    fn holder(&self) -> Holder<'static> {
        Holder {
            common_name: "n1",
            dns_name: self.profile.dns_name("n1"),
        }
    }

    fn directory(&self) -> std::path::PathBuf {
        self.home.path().join("identity")
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory().join(name)).unwrap()
    }

    async fn start(&self, server: &ApiServer, timeout_seconds: u64) -> Result<(), Error> {
        let args = Args {
            node: "n1".to_owned(),
            directory: self.directory(),
            ca: self.home.path().join("bundle.crt"),
            lifetime_seconds: 3600,
            timeout_seconds,
            once: true,
            keep: false,
        };
        obtain(&self.profile, &args, server.client().await).await
    }
}

#[tokio::test]
async fn a_new_node_gets_a_certificate_and_keeps_it() {
    let server = ApiServer::new(Signer::Signs);
    let node = Node::new();
    node.start(&server, 20).await.unwrap();

    let posted = server.posted();
    assert_eq!(posted.len(), 1);
    let spec = &posted[0].spec;
    assert_eq!(spec.signer_name, "iaas.yusur.io/node");
    assert_eq!(
        spec.usages.as_deref().unwrap(),
        ["digital signature", "client auth"]
    );
    assert_eq!(spec.expiration_seconds, Some(3600));
    let (_, pem) = x509_parser::pem::parse_x509_pem(&spec.request.0).unwrap();
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
    request.verify_signature().unwrap();
    let info = &request.certification_request_info;
    assert_eq!(info.subject.to_string(), "O=outboard:chassis, CN=n1");
    assert!(
        info.attributes().is_empty(),
        "the signer refuses extensions"
    );

    validity::renewal_time(&node.file("tls.key"), &node.file("tls.crt"), node.holder()).unwrap();
    assert!(!node.directory().join("ca-cert.pem").exists());
    assert_eq!(node.file("ca.crt"), "first bundle");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&node.directory()), 0o700);
    assert_eq!(mode(&node.directory().join("tls.key")), 0o600);

    let key = node.file("tls.key");
    std::fs::write(node.home.path().join("bundle.crt"), "second bundle").unwrap();
    node.start(&server, 20).await.unwrap();
    assert_eq!(server.posted().len(), 1, "a good pair is used again");
    assert_eq!(node.file("tls.key"), key);
    assert_eq!(node.file("ca.crt"), "second bundle");
    let names: Vec<_> = std::fs::read_dir(node.directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("..v") || name.contains("pending"))
        .collect();
    assert_eq!(names.len(), 1, "only the version in use is left: {names:?}");
}

#[tokio::test]
async fn a_storage_node_asks_for_its_name_and_has_the_files_that_qemu_looks_for() {
    let server = ApiServer::new(Signer::Signs);
    let node = Node::with(STORAGE_NODE);
    node.start(&server, 20).await.unwrap();
    let posted = server.posted();
    let spec = &posted[0].spec;
    assert_eq!(spec.signer_name, "iaas.yusur.io/storage-node");
    assert_eq!(
        spec.usages.as_deref().unwrap(),
        ["digital signature", "client auth", "server auth"]
    );
    let (_, pem) = x509_parser::pem::parse_x509_pem(&spec.request.0).unwrap();
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
    let subject = &request.certification_request_info.subject;
    assert_eq!(subject.to_string(), "O=storage.iaas.yusur.io, CN=n1");
    let names: Vec<String> = request
        .requested_extensions()
        .unwrap()
        .map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => names.general_names[0].to_string(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(names, ["DNSName(n1)"]);

    let follows = || {
        for (name, file) in [
            ("client-key.pem", "tls.key"),
            ("client-cert.pem", "tls.crt"),
            ("server-key.pem", "tls.key"),
            ("server-cert.pem", "tls.crt"),
            ("ca-cert.pem", "ca.crt"),
        ] {
            let link = std::fs::read_link(node.directory().join(name)).unwrap();
            assert_eq!(link, Path::new("..data").join(file));
            assert_eq!(node.file(name), node.file(file));
        }
    };
    follows();
    let first = node.file("tls.crt");
    std::fs::remove_file(node.directory().join("tls.crt")).unwrap();
    node.start(&server, 20).await.unwrap();
    assert_ne!(node.file("client-cert.pem"), first);
    follows();
}

#[tokio::test]
async fn a_server_certificate_without_the_nodes_name_is_refused() {
    let server = ApiServer::new(Signer::SignsWithoutNames);
    let node = Node::with(STORAGE_NODE);
    let sentence = node.start(&server, 1).await.unwrap_err().to_string();
    assert!(
        sentence.contains("DNS name n1") && sentence.contains("csi-controller"),
        "{sentence}"
    );
    assert!(!node.directory().join("server-cert.pem").exists());
}

#[tokio::test]
async fn a_denial_says_why_and_the_next_start_asks_with_another_key() {
    let server = ApiServer::new(Signer::Denies);
    let node = Node::new();
    let sentence = node.start(&server, 20).await.unwrap_err().to_string();
    assert!(
        sentence.contains("WrongNode") && sentence.contains("bound to node n2"),
        "{sentence}"
    );
    assert!(!node.directory().join("tls.key").exists());
    server.set(Signer::Signs);
    node.start(&server, 20).await.unwrap();
    assert_eq!(server.posted().len(), 2);
}

#[tokio::test]
async fn without_a_signer_the_request_waits_and_a_restart_waits_for_the_same() {
    let server = ApiServer::new(Signer::Sleeps);
    let node = Node::new();
    let sentence = node.start(&server, 1).await.unwrap_err().to_string();
    assert!(sentence.contains("is cni-controller running"), "{sentence}");
    let posted_again = eventually("the second post", || {
        server.posts.load(Ordering::SeqCst) == 2
    });
    // The signer comes up while the node waits.
    let (answer, ()) = tokio::join!(node.start(&server, 20), async {
        posted_again.await;
        server.set(Signer::Signs);
    });
    answer.unwrap();
    assert_eq!(server.posted().len(), 1);
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let server = ApiServer::new(Signer::SignsForAnotherName);
    let node = Node::new();
    let sentence = node.start(&server, 1).await.unwrap_err().to_string();
    assert!(
        sentence.contains("n2") && sentence.contains("n1"),
        "{sentence}"
    );
    assert!(!node.directory().join("tls.crt").exists());
}

#[test]
fn renewal_is_due_at_two_thirds_of_the_life() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "n1");
    let start = now() - 600;
    let at = |seconds: i64| std::time::UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
    params.not_before = at(start).into();
    params.not_after = at(start + 3000).into();
    let held = Identity {
        key_pem: key.serialize_pem(),
        cert_pem: params.self_signed(&key).unwrap().pem(),
        ca_pem: String::new(),
    };
    let of = |common_name| Holder {
        common_name,
        dns_name: None,
    };
    let Verdict::Use { renew_at } = validity::judge(Some(&held), of("n1"), now()) else {
        panic!("it is fresh");
    };
    assert!(
        (start + 1850..=start + 2000).contains(&renew_at),
        "{}",
        renew_at - start
    );
    for (chassis, now, why) in [
        ("n1", start + 2001, "two thirds"),
        ("n1", start - 10, "only from"),
        ("n2", now(), "not n2"),
    ] {
        let Verdict::Renew { why: said } = validity::judge(Some(&held), of(chassis), now) else {
            panic!("{chassis} at {now}");
        };
        assert!(said.contains(why), "{said}");
    }
    let other = Identity {
        key_pem: KeyPair::generate().unwrap().serialize_pem(),
        ..held
    };
    assert!(matches!(
        validity::judge(Some(&other), of("n1"), now()),
        Verdict::Renew { .. }
    ));
}
