//! Whether the identity at hand is good, and until when. Pure: the clock is an argument.

use std::hash::{DefaultHasher, Hash, Hasher};

use rcgen::{KeyPair, PublicKeyData};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::X509Certificate;

use super::store::Identity;

/// Whose a certificate must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holder<'a> {
    /// The one common name.
    pub(crate) common_name: &'a str,
    /// The one DNS name, of a server.
    pub(crate) dns_name: Option<&'a str>,
}

/// What is to be done about the identity in place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Good; renew at that time (Unix seconds).
    Use {
        /// Two thirds of the lifetime, less a share of at most a twentieth that depends on the name: nodes that were installed
        /// together do not ask together.
        renew_at: i64,
    },
    /// Get another one.
    Renew {
        /// For the log.
        why: String,
    },
}

/// Judges `held` for `holder` at `now` (Unix seconds).
pub(crate) fn judge(held: Option<&Identity>, holder: Holder<'_>, now: i64) -> Verdict {
    let Some(held) = held else {
        return Verdict::Renew {
            why: "there is none yet".to_owned(),
        };
    };
    match renewal_time(&held.key_pem, &held.cert_pem, holder) {
        Err(why) => Verdict::Renew { why },
        Ok((not_before, renew_at)) if now < not_before => Verdict::Renew {
            why: format!(
                "it is valid only from {not_before} on, now is {now} (renewal was due {renew_at})"
            ),
        },
        Ok((_, renew_at)) if now >= renew_at => Verdict::Renew {
            why: "two thirds of its life are over".to_owned(),
        },
        Ok((_, renew_at)) => Verdict::Use { renew_at },
    }
}

/// Checks that the pair belongs together and to `holder`; returns (not before, renewal time).
pub(crate) fn renewal_time(
    key_pem: &str,
    cert_pem: &str,
    holder: Holder<'_>,
) -> Result<(i64, i64), String> {
    let pem = Pem::iter_from_buffer(cert_pem.as_bytes())
        .next()
        .ok_or("it is not PEM")?
        .map_err(|error| format!("it is not PEM: {error}"))?;
    let certificate: X509Certificate<'_> = pem
        .parse_x509()
        .map_err(|error| format!("it is not an X.509 certificate: {error}"))?;
    let names: Vec<&str> = certificate
        .subject()
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .collect();
    let wanted = holder.common_name;
    if names != [wanted] {
        return Err(format!("its common name is {names:?}, not {wanted}"));
    }
    if let Some(wanted) = holder.dns_name {
        check_dns_name(&certificate, wanted)?;
    }
    let key =
        KeyPair::from_pem(key_pem).map_err(|error| format!("its key cannot be read: {error}"))?;
    if certificate.public_key().raw != key.subject_public_key_info() {
        return Err("it was issued for another key".to_owned());
    }
    let not_before = certificate.validity().not_before.timestamp();
    let life = certificate.validity().not_after.timestamp() - not_before;
    Ok((
        not_before,
        not_before + life * 2 / 3 - spread(holder.common_name, life / 20),
    ))
}

fn check_dns_name(certificate: &X509Certificate<'_>, wanted: &str) -> Result<(), String> {
    let found = certificate
        .subject_alternative_name()
        .map_err(|error| format!("its names cannot be read: {error}"))?;
    let found = found.map_or(&[][..], |found| &found.value.general_names);
    if found == [GeneralName::DNSName(wanted)] {
        return Ok(());
    }
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    Err(format!(
        "its alternative names are {found:?}, not the DNS name {wanted} alone"
    ))
}

fn spread(name: &str, most: i64) -> i64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    i64::try_from(hasher.finish() % u64::try_from(most.max(1)).unwrap_or(1)).unwrap_or(0)
}
