//! The whole of `cni-node identity` against a server that speaks the certificates API.

mod chain;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair,
};
use serde_json::json;
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509CertificationRequest};

use super::*;
use crate::gateway::tests::sandbox::eventually;

/// What the signer does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signer {
    Signs,
    Denies,
    Sleeps,
    SignsForAnotherName,
}

#[derive(Clone)]
struct ApiServer {
    signer: Arc<Mutex<Signer>>,
    objects: Arc<Mutex<BTreeMap<String, CertificateSigningRequest>>>,
    changed: watch::Sender<u64>,
    ca: Arc<(String, KeyPair)>,
    posts: Arc<AtomicUsize>,
}

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

impl ApiServer {
    fn new(signer: Signer) -> Self {
        let key = KeyPair::generate().unwrap();
        let ca = authority().self_signed(&key).unwrap().pem();
        Self {
            signer: Arc::new(Mutex::new(signer)),
            objects: Arc::default(),
            changed: watch::Sender::new(1),
            ca: Arc::new((ca, key)),
            posts: Arc::default(),
        }
    }

    async fn client(&self) -> kube::Client {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route(PATH, get(list).post(create))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        kube::Client::try_from(kube::Config::new(
            format!("http://{address}").parse().unwrap(),
        ))
        .unwrap()
    }

    fn set(&self, signer: Signer) {
        *self.signer.lock().unwrap() = signer;
        let names: Vec<String> = self.objects.lock().unwrap().keys().cloned().collect();
        for name in names {
            self.decide(&name);
        }
    }

    /// What cni-controller does.
    fn decide(&self, name: &str) {
        let signer = *self.signer.lock().unwrap();
        let mut objects = self.objects.lock().unwrap();
        let object = objects.get_mut(name).unwrap();
        let pem = String::from_utf8(object.spec.request.0.clone()).unwrap();
        let mut status = CertificateSigningRequestStatus::default();
        let mut request = CertificateSigningRequestParams::from_pem(&pem).unwrap();
        match signer {
            Signer::Sleeps => return,
            Signer::Denies => {
                status.conditions = Some(vec![CertificateSigningRequestCondition {
                    type_: "Denied".to_owned(),
                    status: "True".to_owned(),
                    reason: Some("WrongNode".to_owned()),
                    message: Some("the token is bound to node n2".to_owned()),
                    ..CertificateSigningRequestCondition::default()
                }]);
            }
            Signer::Signs | Signer::SignsForAnotherName => {
                if signer == Signer::SignsForAnotherName {
                    request
                        .params
                        .distinguished_name
                        .push(rcgen::DnType::CommonName, "n2");
                }
                let issuer = Issuer::new(authority(), &self.ca.1);
                let certificate = request.signed_by(&issuer).unwrap();
                status.certificate = Some(ByteString(certificate.pem().into_bytes()));
            }
        }
        object.status = Some(status);
        self.changed.send_modify(|version| *version += 1);
    }

    fn posted(&self) -> Vec<CertificateSigningRequest> {
        self.objects.lock().unwrap().values().cloned().collect()
    }
}

fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "authority");
    params
}

async fn create(State(server): State<ApiServer>, body: Bytes) -> Response {
    server.posts.fetch_add(1, Ordering::SeqCst);
    let mut object: CertificateSigningRequest = serde_json::from_slice(&body).unwrap();
    let name = object.metadata.name.clone().unwrap();
    object.metadata.resource_version = Some(server.changed.borrow().to_string());
    object.metadata.uid = Some(name.clone());
    if server.objects.lock().unwrap().contains_key(&name) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409,
            "reason": "AlreadyExists", "message": format!("{name} already exists")});
        return answer(StatusCode::CONFLICT, &status);
    }
    server
        .objects
        .lock()
        .unwrap()
        .insert(name.clone(), object.clone());
    server.decide(&name);
    answer(StatusCode::CREATED, &serde_json::to_value(object).unwrap())
}

fn answer(code: StatusCode, body: &serde_json::Value) -> Response {
    (
        code,
        [(header::CONTENT_TYPE, "application/json")],
        body.to_string(),
    )
        .into_response()
}

async fn list(State(server): State<ApiServer>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let value = |key: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    };
    let wanted =
        value("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name%3D"));
    let selected = {
        let (server, wanted) = (server.clone(), wanted.map(str::to_owned));
        move || -> Vec<CertificateSigningRequest> {
            let all = server.posted().into_iter();
            all.filter(|one| wanted.is_none() || one.metadata.name == wanted)
                .collect()
        }
    };
    if !matches!(value("watch"), Some("true" | "1")) {
        let version = server.changed.borrow().to_string();
        let list = json!({"kind": "CertificateSigningRequestList", "apiVersion": "certificates.k8s.io/v1",
            "metadata": {"resourceVersion": version}, "items": selected()});
        return answer(StatusCode::OK, &list);
    }
    let changes = changes_of(server.changed.subscribe());
    let lines = changes.flat_map(move |_| {
        let events: Vec<Result<String, std::io::Error>> = selected()
            .into_iter()
            .map(|object| {
                Ok(format!(
                    "{}\n",
                    json!({"type": "MODIFIED", "object": object})
                ))
            })
            .collect();
        futures::stream::iter(events)
    });
    Body::from_stream(lines).into_response()
}

fn changes_of(receiver: watch::Receiver<u64>) -> impl futures::Stream<Item = u64> {
    futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.changed().await.ok()?;
        let version = *receiver.borrow();
        Some((version, receiver))
    })
}

struct Node {
    home: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("bundle.crt"), "first bundle").unwrap();
        Self { home }
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
        run(&args, server.client().await).await
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

    validity::renewal_time(&node.file("tls.key"), &node.file("tls.crt"), "n1").unwrap();
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
    let Verdict::Use { renew_at } = validity::judge(Some(&held), "n1", now()) else {
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
        let Verdict::Renew { why: said } = validity::judge(Some(&held), chassis, now) else {
            panic!("{chassis} at {now}");
        };
        assert!(said.contains(why), "{said}");
    }
    let other = Identity {
        key_pem: KeyPair::generate().unwrap().serialize_pem(),
        ..held
    };
    assert!(matches!(
        validity::judge(Some(&other), "n1", now()),
        Verdict::Renew { .. }
    ));
}
