//! The CertificateSigningRequest: from a key to a signed certificate.
//!
//! The object is named after its key, and the key is written down before the object is posted: a restart in between awaits the
//! same request instead of posting another.

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, PostParams};
use kube::runtime::wait::await_condition;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData, SanType};
use tracing::info;
use uuid::Uuid;

use super::error::Error;
use super::store::Store;
use super::validity::{self, Holder};
use crate::Profile;

/// What is asked for, and how long an answer is awaited.
pub(crate) struct Request<'a> {
    pub(crate) profile: &'a Profile,
    pub(crate) holder: Holder<'a>,
    pub(crate) lifetime_seconds: i32,
    pub(crate) patience: Duration,
}

impl Request<'_> {
    /// Posts the request (or finds it posted) and awaits its certificate. Returns (key, certificate), PEM.
    pub(crate) async fn obtain(
        &self,
        store: &Store,
        client: &kube::Client,
    ) -> Result<(String, String), Error> {
        let key = self.key(store)?;
        let object = self.object(&key)?;
        let name = object.metadata.name.clone().unwrap_or_default();
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => info!(csr = name, "certificate request posted"),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                info!(csr = name, "certificate request found, awaiting its answer");
            }
            Err(source) => {
                return Err(Error::Api {
                    action: "post",
                    name,
                    source: source.into(),
                });
            }
        }
        let answer = self.answer(api, &name).await;
        if matches!(
            answer,
            Err(Error::Denied { .. } | Error::Failed { .. } | Error::Unusable { .. })
        ) {
            store.forget_pending();
        }
        let certificate = answer?;
        let key_pem = key.serialize_pem();
        match validity::renewal_time(&key_pem, &certificate, self.holder) {
            Ok(_) => Ok((key_pem, certificate)),
            Err(problem) => {
                store.forget_pending();
                Err(self.unusable(name, problem))
            }
        }
    }

    fn key(&self, store: &Store) -> Result<KeyPair, Error> {
        if let Some(key) = store
            .pending()?
            .and_then(|pem| KeyPair::from_pem(&pem).ok())
        {
            return Ok(key);
        }
        let key = KeyPair::generate().map_err(|source| self.key_error(source))?;
        store.remember_pending(&key.serialize_pem())?;
        Ok(key)
    }

    fn object(&self, key: &KeyPair) -> Result<CertificateSigningRequest, Error> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::OrganizationName, self.profile.organization);
        subject.push(DnType::CommonName, self.holder.common_name);
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        let mut made = || -> Result<String, rcgen::Error> {
            if let Some(name) = self.holder.dns_name {
                params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
            }
            params.serialize_request(key)?.pem()
        };
        let pem = made().map_err(|source| self.key_error(source))?;
        let usages = self.profile.usages().iter();
        Ok(CertificateSigningRequest {
            metadata: ObjectMeta {
                name: Some(self.name(key)),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: self.profile.signer.to_owned(),
                usages: Some(usages.map(|&usage| usage.to_owned()).collect()),
                expiration_seconds: Some(self.lifetime_seconds),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        })
    }

    /// Lower-case, because an object's name is a DNS name and our common names are such too.
    fn name(&self, key: &KeyPair) -> String {
        let of_key = Uuid::new_v5(&Uuid::NAMESPACE_OID, &key.subject_public_key_info());
        format!("outboard-{}-{}", self.holder.common_name, of_key.simple())
    }

    fn key_error(&self, source: rcgen::Error) -> Error {
        Error::Key {
            common_name: self.holder.common_name.to_owned(),
            source,
        }
    }

    fn unusable(&self, name: String, problem: String) -> Error {
        Error::Unusable {
            name,
            problem,
            controller: self.profile.controller,
        }
    }

    async fn answer(
        &self,
        api: Api<CertificateSigningRequest>,
        name: &str,
    ) -> Result<String, Error> {
        let decided = |object: Option<&CertificateSigningRequest>| {
            object.is_none_or(|object| certificate(object).is_some() || refusal(object).is_some())
        };
        let object = tokio::time::timeout(self.patience, await_condition(api, name, decided))
            .await
            .map_err(|_| Error::Undecided {
                name: name.to_owned(),
                seconds: self.patience.as_secs(),
                controller: self.profile.controller,
                signer: self.profile.signer,
            })?
            .map_err(|source| Error::Api {
                action: "watch",
                name: name.to_owned(),
                source: source.into(),
            })?
            .ok_or_else(|| Error::Deleted {
                name: name.to_owned(),
            })?;
        if let Some((denied, reason, message)) = refusal(&object) {
            let (name, controller) = (name.to_owned(), self.profile.controller);
            return Err(if denied {
                Error::Denied {
                    name,
                    common_name: self.holder.common_name.to_owned(),
                    reason,
                    message,
                    controller,
                }
            } else {
                Error::Failed {
                    name,
                    reason,
                    message,
                    controller,
                }
            });
        }
        let bytes = certificate(&object).unwrap_or_default().to_vec();
        String::from_utf8(bytes)
            .map_err(|_| self.unusable(name.to_owned(), "it is not PEM text".to_owned()))
    }
}

fn certificate(object: &CertificateSigningRequest) -> Option<&[u8]> {
    let bytes = &object.status.as_ref()?.certificate.as_ref()?.0;
    (!bytes.is_empty()).then_some(bytes.as_slice())
}

/// (denied rather than failed, reason, message) of a request that gets no certificate.
fn refusal(object: &CertificateSigningRequest) -> Option<(bool, String, String)> {
    let conditions = object.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|one| one.type_ == "Denied" || one.type_ == "Failed")?;
    Some((
        condition.type_ == "Denied",
        condition
            .reason
            .clone()
            .unwrap_or_else(|| "no reason".to_owned()),
        condition
            .message
            .clone()
            .unwrap_or_else(|| "no message".to_owned()),
    ))
}
