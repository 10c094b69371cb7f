//! The signing half: serves the CertificateSigningRequests of one [`Profile`].
//!
//! Whoever reads such a certificate trusts its common name: OVN's role for ovn-controller takes it for the chassis name, storage
//! targets and csi-controller for the node's. So a request is granted only when the API server itself says, in the request's `extra`,
//! that it was posted with a token bound to a pod on that very node ([`verdict`]). One loop, level-triggered:
//! a request that is pending gets a verdict, then the condition, then the certificate; each step
//! reads what is there first, so two signers at once do no harm.

mod verdict;

use crate::{Authority, AuthorityError, Profile};
use futures::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use verdict::Posted;

pub(crate) use verdict::Grant;

/// A failed step is tried again after this.
const RETRY: Duration = Duration::from_secs(2);

/// Where the CA lies and what it gives out.
#[derive(Clone, Debug)]
pub struct SignerConfig {
    /// The CA's certificate (PEM). Read again for each request: a rotated CA counts at once.
    pub certificate: PathBuf,
    /// The CA's private key (PEM, PKCS #8).
    pub key: PathBuf,
    /// How long a certificate lasts. A request may ask for less, never for more.
    pub lifetime: Duration,
    /// Whose requests are served.
    pub profile: Profile,
}

/// Why a request could not be worked on. All of them are tried again.
#[derive(Debug, thiserror::Error)]
enum SignerError {
    /// The API server refused or could not be reached.
    #[error("CertificateSigningRequest {name}: the API server did not take the {step}")]
    Api {
        /// The request's name.
        name: String,
        /// What was to be written.
        step: &'static str,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The CA could not be read or does not work.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

struct Context {
    api: Api<CertificateSigningRequest>,
    config: SignerConfig,
}

/// Serves requests until it is dropped. `client` is one of [`informer::client`].
pub async fn run(client: Client, config: SignerConfig) {
    let api: Api<CertificateSigningRequest> = Api::all(client);
    let ours = watcher::Config::default()
        .timeout(informer::PERIOD)
        .fields(&format!("spec.signerName={}", config.profile.signer));
    let context = Arc::new(Context {
        api: api.clone(),
        config,
    });
    Controller::new(api, ours)
        .run(
            |request, context| async move { reconcile(&request, &context).await },
            |request, error, _| {
                tracing::warn!(
                    request = request.name_any(),
                    "{}; tried again in {RETRY:?}",
                    crate::chain(error)
                );
                Action::requeue(RETRY)
            },
            context,
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

async fn reconcile(
    request: &CertificateSigningRequest,
    context: &Context,
) -> Result<Action, SignerError> {
    let config = &context.config;
    let profile = &config.profile;
    if request.spec.signer_name != profile.signer || is_settled(request) {
        return Ok(Action::await_change());
    }
    let name = request.name_any();
    let grant = match verdict::verdict(profile, &posted(request)) {
        Ok(grant) => grant,
        Err(denial) => {
            tracing::warn!(
                request = name,
                user = request.spec.username,
                "denied: {denial}"
            );
            // A request that a person approved can no longer be denied, only failed.
            let kind = if has(request, "Approved") {
                "Failed"
            } else {
                "Denied"
            };
            let condition = condition(kind, denial.reason(), denial.to_string());
            return write_condition(context, request, condition).await;
        }
    };
    if !has(request, "Approved") {
        let message = format!(
            "the token is bound to the node of {} {}",
            profile.noun(),
            grant.common_name
        );
        // The certificate follows when the approved request comes back through the watch.
        return write_condition(
            context,
            request,
            condition("Approved", "NodeIdentity", message),
        )
        .await;
    }
    let lifetime =
        requested_lifetime(request).map_or(config.lifetime, |asked| asked.min(config.lifetime));
    let authority = Authority::of(profile, &config.certificate, &config.key)?;
    let certificate = authority.sign(profile, &grant, lifetime, SystemTime::now())?;
    let patch = json!({
        "metadata": { "resourceVersion": request.resource_version() },
        "status": { "certificate": ByteString(certificate.into_bytes()) },
    });
    context
        .api
        .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|source| api_error(&name, "certificate", source))?;
    let (chassis, node) = profile.fields(&grant.common_name);
    tracing::info!(
        request = name,
        chassis,
        node,
        ?lifetime,
        "signed a certificate"
    );
    Ok(Action::await_change())
}

/// Whether nothing is left to do.
fn is_settled(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    status.is_some_and(|status| status.certificate.as_ref().is_some_and(|c| !c.0.is_empty()))
        || has(request, "Denied")
        || has(request, "Failed")
}

fn has(request: &CertificateSigningRequest, kind: &str) -> bool {
    conditions(request)
        .iter()
        .any(|condition| condition.type_ == kind)
}

fn conditions(request: &CertificateSigningRequest) -> &[CertificateSigningRequestCondition] {
    request
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default()
}

fn posted(request: &CertificateSigningRequest) -> Posted<'_> {
    Posted {
        pem: &request.spec.request.0,
        username: request.spec.username.as_deref().unwrap_or_default(),
        extra: request.spec.extra.as_ref(),
        usages: request.spec.usages.as_deref().unwrap_or_default(),
    }
}

fn requested_lifetime(request: &CertificateSigningRequest) -> Option<Duration> {
    let seconds = u64::try_from(request.spec.expiration_seconds?).ok()?;
    Some(Duration::from_secs(seconds))
}

fn condition(kind: &str, reason: &str, message: String) -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(jiff::Timestamp::now())),
        last_transition_time: None,
    }
}

/// Adds a condition: Approved and Denied through the approval subresource, Failed through status.
async fn write_condition(
    context: &Context,
    request: &CertificateSigningRequest,
    condition: CertificateSigningRequestCondition,
) -> Result<Action, SignerError> {
    let name = request.name_any();
    let through_status = condition.type_ == "Failed";
    let mut all = conditions(request).to_vec();
    all.push(condition);
    let patch = Patch::Merge(json!({
        "metadata": { "resourceVersion": request.resource_version() },
        "status": { "conditions": all },
    }));
    let written = if through_status {
        context
            .api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
    } else {
        context
            .api
            .patch_approval(&name, &PatchParams::default(), &patch)
            .await
    };
    written.map_err(|source| api_error(&name, "condition", source))?;
    Ok(Action::await_change())
}

fn api_error(name: &str, step: &'static str, source: kube::Error) -> SignerError {
    SignerError::Api {
        name: name.to_owned(),
        step,
        source: Box::new(source),
    }
}
