//! Certificates that a stranger may show to a DPU: stolen ones, and those that it makes itself.

use std::fs;

use anyhow::{Context as _, Result};
use api::names::CHANNEL_IDENTITY_DIR;
use e2e::{Lab, Node};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// What somebody has in hand.
pub(super) struct Papers {
    /// By which it knows the DPU; PEM.
    pub(super) ca: String,
    /// Certificate and key, PEM. None: it shows nothing.
    pub(super) own: Option<(String, String)>,
}

/// A CA's certificate and its issuer.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Those of a node's own identity in the channel.
pub(super) fn stolen(node: &Node) -> Result<Papers> {
    let file = |name: &str| node.exec(&["cat", &format!("{CHANNEL_IDENTITY_DIR}/{name}")]);
    Ok(Papers {
        ca: file("ca.crt")? + "\n",
        own: Some((file("tls.crt")? + "\n", file("tls.key")? + "\n")),
    })
}

/// None at all.
pub(super) fn none(lab: &Lab) -> Result<Papers> {
    Ok(Papers {
        ca: of_lab(lab)?.pem,
        own: None,
    })
}

/// In the name of a node, of a CA that nobody knows.
pub(super) fn of_another_authority(lab: &Lab, node: &str) -> Result<Papers> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // The very name of the real one.
    params
        .distinguished_name
        .push(DnType::CommonName, "outboard-channel-ca");
    let issuer = Issuer::new(params, KeyPair::generate()?);
    Ok(Papers {
        ca: of_lab(lab)?.pem,
        own: Some(signed(&issuer, node, 2045)?),
    })
}

/// In the name of a node, of the channel's own CA, and over for years.
pub(super) fn expired(lab: &Lab, node: &str) -> Result<Papers> {
    let Authority { pem, issuer } = of_lab(lab)?;
    Ok(Papers {
        own: Some(signed(&issuer, node, 2021)?),
        ca: pem,
    })
}

fn of_lab(lab: &Lab) -> Result<Authority> {
    let file = |ending: &str| {
        let path = lab
            .site
            .dir()
            .join("channel/outboard-channel-ca")
            .with_extension(ending);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (pem, key) = (file("crt")?, file("key")?);
    let issuer = Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&key)?)?;
    Ok(Authority { pem, issuer })
}

fn signed(issuer: &Issuer<'static, KeyPair>, node: &str, until: i32) -> Result<(String, String)> {
    let mut params = CertificateParams::new([node.to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, node);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 1, 1);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
