//! A server that speaks the certificates API, and the signer behind it.

use std::collections::BTreeMap;
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

/// What the signer does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signer {
    Signs,
    Denies,
    Sleeps,
    SignsForAnotherName,
    SignsWithoutNames,
}

#[derive(Clone)]
pub(crate) struct ApiServer {
    signer: Arc<Mutex<Signer>>,
    objects: Arc<Mutex<BTreeMap<String, CertificateSigningRequest>>>,
    changed: watch::Sender<u64>,
    /// Certificate (PEM) and key of [`authority`].
    pub(crate) ca: Arc<(String, KeyPair)>,
    /// How often somebody posted.
    pub(crate) posts: Arc<AtomicUsize>,
}

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

impl ApiServer {
    pub(crate) fn new(signer: Signer) -> Self {
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

    pub(crate) async fn client(&self) -> kube::Client {
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

    pub(crate) fn set(&self, signer: Signer) {
        *self.signer.lock().unwrap() = signer;
        let names: Vec<String> = self.objects.lock().unwrap().keys().cloned().collect();
        for name in names {
            self.decide(&name);
        }
    }

    /// What the controller does.
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
            Signer::Signs | Signer::SignsForAnotherName | Signer::SignsWithoutNames => {
                if signer == Signer::SignsWithoutNames {
                    request.params.subject_alt_names.clear();
                }
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

    pub(crate) fn posted(&self) -> Vec<CertificateSigningRequest> {
        self.objects.lock().unwrap().values().cloned().collect()
    }
}

pub(crate) fn authority() -> CertificateParams {
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
