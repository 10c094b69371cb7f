//! May this request have a certificate? A pure function of what the API server wrote down.
//!
//! Everything is refused that is not exactly what a node asks for (feature `ask`). Who posted the
//! request and on which node that token lives are facts of the API server; whatever else is in the
//! request is the node's word and grants nothing.

use crate::Profile;
use api::names;
use std::collections::BTreeMap;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry as oid;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, ParsedCriAttribute, X509CertificationRequest};
use x509_parser::x509::SubjectPublicKeyInfo;

const LARGEST_REQUEST: usize = 16 * 1024;

/// What the API server has on record of a request.
pub(crate) struct Posted<'a> {
    /// `spec.request`: PEM of a PKCS #10 request.
    pub(crate) pem: &'a [u8],
    /// `spec.username`, set by the API server.
    pub(crate) username: &'a str,
    /// `spec.extra`, set by the API server.
    pub(crate) extra: Option<&'a BTreeMap<String, Vec<String>>>,
    /// `spec.usages`.
    pub(crate) usages: &'a [String],
}

/// A certificate to be made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The common name.
    pub(crate) common_name: String,
    /// The DNS name, for a server's certificate.
    pub(crate) dns_name: Option<String>,
    /// The public key: a SubjectPublicKeyInfo (DER).
    pub(crate) public_key: Vec<u8>,
}

/// Why there is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denial {
    #[error("posted by {found:?}: only {users} may ask for {kind} certificates")]
    Poster {
        found: String,
        users: String,
        kind: &'static str,
    },
    #[error(
        "the poster's token is not bound to a {0}: use a projected service account token of a pod on the node"
    )]
    Unbound(&'static str),
    #[error("usages are {found:?}: ask for exactly {wanted}")]
    Usages { found: Vec<String>, wanted: String },
    #[error("the request is no PKCS #10 request that can be read: {0}")]
    Malformed(String),
    #[error("the request is not signed with its own key")]
    Signature,
    #[error("the key is {0}: use ECDSA on P-256 or P-384")]
    Key(String),
    #[error(
        "the subject is {found:?}: it must be CN={common_name}, alone or with O={organization}"
    )]
    Subject {
        found: String,
        common_name: String,
        organization: &'static str,
    },
    #[error(
        "the common name is {found:?}, but the token is bound to node {node:?}, whose {noun} is {common_name:?}"
    )]
    OtherNode {
        found: String,
        node: String,
        noun: &'static str,
        common_name: String,
    },
    #[error("the subject alternative names are {found:?}: ask for exactly one, DNS name {node:?}")]
    Names { found: Vec<String>, node: String },
    #[error("the request asks for {found}: a {kind} certificate has none")]
    Extension { found: String, kind: &'static str },
}

impl Denial {
    /// A word in CamelCase for the condition's `reason`.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Poster { .. } => "WrongPoster",
            Self::Unbound(_) => "TokenNotBound",
            Self::Usages { .. } => "WrongUsages",
            Self::Malformed(_) => "Malformed",
            Self::Signature => "BadSignature",
            Self::Key(_) => "WrongKey",
            Self::Subject { .. } => "WrongSubject",
            Self::OtherNode { .. } => "OtherNode",
            Self::Names { .. } => "WrongNames",
            Self::Extension { .. } => "WrongExtension",
        }
    }
}

/// The certificate of `profile` that the request may have.
pub(crate) fn verdict(profile: &Profile, posted: &Posted<'_>) -> Result<Grant, Denial> {
    if !profile.users.contains(&posted.username) {
        return Err(Denial::Poster {
            found: posted.username.to_owned(),
            users: profile.users.join(" and "),
            kind: profile.kind,
        });
    }
    bound_to(posted, names::EXTRA_POD_NAME, "pod")?;
    let node = bound_to(posted, names::EXTRA_NODE_NAME, "node")?;
    check_usages(profile, posted.usages)?;
    if posted.pem.len() > LARGEST_REQUEST {
        return Err(Denial::Malformed(format!(
            "it has more than {LARGEST_REQUEST} bytes"
        )));
    }
    let (_, pem) = parse_x509_pem(posted.pem).map_err(|e| Denial::Malformed(e.to_string()))?;
    let (rest, request) = X509CertificationRequest::from_der(&pem.contents)
        .map_err(|error| Denial::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Denial::Malformed(
            "there is more behind the request".to_owned(),
        ));
    }
    check_key(&request.certification_request_info.subject_pki)?;
    request.verify_signature().map_err(|_| Denial::Signature)?;
    let common_name = profile.common_name(node);
    check_subject(profile, &request, node, &common_name)?;
    check_extensions(profile, &request, node)?;
    Ok(Grant {
        common_name,
        dns_name: profile.dns_name(node).map(str::to_owned),
        public_key: request.certification_request_info.subject_pki.raw.to_vec(),
    })
}

/// The one value that the API server put under `key`.
fn bound_to<'a>(posted: &Posted<'a>, key: &str, what: &'static str) -> Result<&'a str, Denial> {
    match posted
        .extra
        .and_then(|extra| extra.get(key))
        .map(Vec::as_slice)
    {
        Some([value]) if !value.is_empty() => Ok(value),
        _ => Err(Denial::Unbound(what)),
    }
}

fn check_usages(profile: &Profile, usages: &[String]) -> Result<(), Denial> {
    let mut found: Vec<&str> = usages.iter().map(String::as_str).collect();
    let mut wanted = profile.usages().to_vec();
    found.sort_unstable();
    wanted.sort_unstable();
    if found == wanted {
        return Ok(());
    }
    let quoted: Vec<String> = profile
        .usages()
        .iter()
        .map(|one| format!("\"{one}\""))
        .collect();
    Err(Denial::Usages {
        found: usages.to_vec(),
        wanted: quoted.join(" and "),
    })
}

fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), Denial> {
    let algorithm = key.algorithm.oid();
    if *algorithm != oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
        return Err(Denial::Key(format!("of algorithm {algorithm}")));
    }
    let curve = key
        .algorithm
        .parameters()
        .and_then(|parameters| parameters.as_oid().ok());
    match curve {
        Some(curve) if curve == oid::OID_EC_P256 || curve == oid::OID_NIST_EC_P384 => Ok(()),
        Some(curve) => Err(Denial::Key(format!("on curve {curve}"))),
        None => Err(Denial::Key("on a curve without a name".to_owned())),
    }
}

fn check_subject(
    profile: &Profile,
    request: &X509CertificationRequest<'_>,
    node: &str,
    expected: &str,
) -> Result<(), Denial> {
    let subject = &request.certification_request_info.subject;
    let wrong = || Denial::Subject {
        found: subject.to_string(),
        common_name: expected.to_owned(),
        organization: profile.organization,
    };
    let mut common_name = None;
    let mut organizations = 0;
    for attribute in subject.iter_attributes() {
        let value = attribute.as_str().map_err(|_| wrong())?;
        if *attribute.attr_type() == oid::OID_X509_COMMON_NAME && common_name.is_none() {
            common_name = Some(value);
        } else if *attribute.attr_type() == oid::OID_X509_ORGANIZATION_NAME
            && value == profile.organization
            && organizations == 0
        {
            organizations += 1;
        } else {
            return Err(wrong());
        }
    }
    match common_name {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(Denial::OtherNode {
            found: found.to_owned(),
            node: node.to_owned(),
            noun: profile.noun(),
            common_name: expected.to_owned(),
        }),
        None => Err(wrong()),
    }
}

/// Key usages that we give anyway may be asked for, a server's own name must be; CA bits, other names and the unknown may not.
fn check_extensions(
    profile: &Profile,
    request: &X509CertificationRequest<'_>,
    node: &str,
) -> Result<(), Denial> {
    let extra = |found: String| Denial::Extension {
        found,
        kind: profile.kind,
    };
    let mut names = Vec::new();
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else {
            return Err(extra(format!("attribute {}", attribute.oid)));
        };
        for extension in &asked.extensions {
            let usual = match extension.parsed_extension() {
                // The bit of digitalSignature, RFC 5280 4.2.1.3.
                ParsedExtension::KeyUsage(usage) => usage.flags == 1,
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    usage.client_auth
                        && usage.server_auth == profile.server
                        && !(usage.any
                            || usage.code_signing
                            || usage.email_protection
                            || usage.time_stamping
                            || usage.ocsp_signing)
                        && usage.other.is_empty()
                }
                ParsedExtension::SubjectAlternativeName(asked) if profile.server => {
                    names.extend(&asked.general_names);
                    true
                }
                ParsedExtension::SubjectAlternativeName(asked) => {
                    return Err(extra(format!(
                        "{} subject alternative name(s)",
                        asked.general_names.len()
                    )));
                }
                ParsedExtension::BasicConstraints(constraints) => !constraints.ca,
                _ => false,
            };
            if !usual {
                return Err(extra(format!("extension {}", extension.oid)));
            }
        }
    }
    match names.as_slice() {
        [] if !profile.server => Ok(()),
        [GeneralName::DNSName(name)] if *name == node => Ok(()),
        names => Err(Denial::Names {
            found: names.iter().map(ToString::to_string).collect(),
            node: node.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
