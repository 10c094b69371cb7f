use super::*;
use crate::{CHASSIS, STORAGE_NODE};
use rcgen::{BasicConstraints, PublicKeyData as _};
use std::net::Ipv4Addr;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::X509Certificate;

const EPOCH: u64 = 1_800_000_000;

fn authority(profile: &Profile, dir: &Path) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).unwrap();
    fs::write(dir.join("tls.crt"), certificate.pem()).unwrap();
    fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
    Authority::of(profile, &dir.join("tls.crt"), &dir.join("tls.key")).unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(EPOCH)
}

/// Lets `look` see the certificate, once it is proven to be the authority's.
fn read(authority: &Authority, pem: &str, look: impl FnOnce(&X509Certificate<'_>)) {
    let (_, ca) = parse_x509_pem(authority.certificate_pem().as_bytes()).unwrap();
    let ca = ca.parse_x509().unwrap();
    let (_, leaf) = parse_x509_pem(pem.as_bytes()).unwrap();
    let leaf = leaf.parse_x509().unwrap();
    leaf.verify_signature(Some(ca.public_key())).unwrap();
    look(&leaf);
}

#[test]
fn the_chassis_certificate_says_what_we_say() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&CHASSIS, dir.path());
    let node = KeyPair::generate().unwrap();
    let grant = Grant {
        common_name: "n1".to_owned(),
        dns_name: None,
        public_key: node.subject_public_key_info(),
    };
    let sign = |lifetime| authority.sign(&CHASSIS, &grant, lifetime, now()).unwrap();
    let mut serials = Vec::new();
    read(
        &authority,
        &sign(Duration::from_secs(86_400)),
        |leaf: &X509Certificate<'_>| {
            assert_eq!(leaf.subject().to_string(), "O=outboard:chassis, CN=n1");
            assert_eq!(leaf.public_key().raw, node.subject_public_key_info());
            assert_eq!(leaf.validity().not_before.timestamp(), 1_800_000_000 - 300);
            assert_eq!(
                leaf.validity().not_after.timestamp(),
                1_800_000_000 + 86_400
            );
            assert!(!leaf.is_ca());
            let usage = leaf.key_usage().unwrap().unwrap();
            assert!(usage.critical && usage.value.flags == 1);
            let usage = leaf.extended_key_usage().unwrap().unwrap().value;
            assert!(usage.client_auth && !usage.server_auth && !usage.any);
            assert!(leaf.subject_alternative_name().unwrap().is_none());
            serials.push(leaf.raw_serial().to_vec());
        },
    );
    read(&authority, &sign(Duration::from_secs(60)), |again| {
        assert_ne!(again.raw_serial(), serials[0]);
    });
}

#[test]
fn the_storage_certificate_has_the_nodes_name_and_both_usages() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&STORAGE_NODE, dir.path());
    let key = KeyPair::generate().unwrap();
    let grant = Grant {
        common_name: "n1".to_owned(),
        dns_name: Some("n1".to_owned()),
        public_key: key.subject_public_key_info(),
    };
    let pem = authority.sign(&STORAGE_NODE, &grant, Duration::from_secs(60), now());
    read(&authority, &pem.unwrap(), |leaf| {
        // Targets admit this very sentence.
        assert_eq!(leaf.subject().to_string(), "O=storage.iaas.yusur.io, CN=n1");
        let names = leaf.subject_alternative_name().unwrap().unwrap().value;
        assert_eq!(names.general_names, [GeneralName::DNSName("n1")]);
        // QEMU refuses a critical one without keyEncipherment.
        let usage = leaf.key_usage().unwrap().unwrap();
        assert!(!usage.critical && usage.value.flags == 1);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth && !usage.any);
    });
}

#[test]
fn an_issued_certificate_comes_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(&STORAGE_NODE, dir.path());
    let what = Leaf {
        common_name: "target".to_owned(),
        dns_names: vec!["target.example".to_owned()],
        ip_addresses: vec![Ipv4Addr::new(198, 18, 0, 1).into()],
        server: true,
        ..Leaf::default()
    };
    let issued = authority.issue(&what, Duration::from_secs(3600), now());
    let issued = issued.unwrap();
    assert!(!format!("{issued:?}").contains("PRIVATE"));
    let key = KeyPair::from_pem(&issued.key_pem).unwrap();
    assert_eq!(key.algorithm(), &rcgen::PKCS_ECDSA_P256_SHA256);
    read(&authority, &issued.certificate_pem, |leaf| {
        assert_eq!(leaf.subject().to_string(), "CN=target");
        assert_eq!(leaf.public_key().raw, key.subject_public_key_info());
        let names = leaf.subject_alternative_name().unwrap().unwrap().value;
        let wanted = [
            GeneralName::DNSName("target.example"),
            GeneralName::IPAddress(&[198, 18, 0, 1]),
        ];
        assert_eq!(names.general_names, wanted);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth);
    });
    let what = Leaf {
        common_name: "bad".to_owned(),
        dns_names: vec!["\u{e9}".to_owned()],
        ..Leaf::default()
    };
    let error = authority.issue(&what, Duration::from_secs(60), now());
    assert!(
        error
            .unwrap_err()
            .to_string()
            .starts_with("storage CA: no certificate for bad: ")
    );
}

#[test]
fn a_missing_ca_names_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let error = |loaded: Result<Authority, AuthorityError>| loaded.err().unwrap().to_string();
    let said = error(Authority::of(&CHASSIS, &certificate, &key));
    assert!(
        said.contains("tls.key") && said.contains("outboard-chassis-ca"),
        "{said}"
    );
    let said = error(Authority::load(&certificate, &key));
    assert!(said.contains("outboard-storage-ca"), "{said}");
    fs::write(&key, "rubbish").unwrap();
    assert!(error(Authority::load(&certificate, &key)).contains("PKCS #8"));
}
