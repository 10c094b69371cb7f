//! Forged requests, one flaw each.

use super::*;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PublicKeyData as _,
};

/// A request that is right in everything, to be spoilt.
struct Request {
    params: CertificateParams,
    key: KeyPair,
    username: String,
    extra: BTreeMap<String, Vec<String>>,
    usages: Vec<String>,
    pem: Option<Vec<u8>>,
}

impl Request {
    fn of(node: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, names::chassis(node));
        let extra = [
            (names::EXTRA_NODE_NAME, node),
            (names::EXTRA_POD_NAME, "cni-node-x"),
        ]
        .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
        .into();
        Self {
            params,
            key: KeyPair::generate().unwrap(),
            username: names::NODE_USER.to_owned(),
            extra,
            usages: vec!["digital signature".to_owned(), "client auth".to_owned()],
            pem: None,
        }
    }

    fn pem(&self) -> Vec<u8> {
        self.params
            .serialize_request(&self.key)
            .unwrap()
            .pem()
            .unwrap()
            .into_bytes()
    }

    fn verdict(&self) -> Result<Grant, Denial> {
        let pem = self.pem.clone().unwrap_or_else(|| self.pem());
        verdict(&Posted {
            pem: &pem,
            username: &self.username,
            extra: Some(&self.extra),
            usages: &self.usages,
        })
    }
}

#[test]
fn the_request_of_the_nodes_own_pod_is_granted() {
    for node in ["n1", "a-node.example.com", &"x".repeat(100)] {
        let request = Request::of(node);
        let grant = request.verdict().unwrap();
        assert_eq!(grant.chassis, names::chassis(node));
        assert_eq!(grant.public_key, request.key.subject_public_key_info());
    }
}

#[test]
fn harmless_variants_are_granted() {
    let mut request = Request::of("n1");
    request
        .params
        .distinguished_name
        .push(DnType::OrganizationName, names::CHASSIS_ORGANIZATION);
    request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    request.key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    request.usages.reverse();
    assert_eq!(request.verdict().unwrap().chassis, "n1");
}

#[test]
fn forged_requests_are_denied_with_a_reason() {
    type Flaw = (&'static str, fn(&mut Request));
    let flaws: &[Flaw] = &[
        ("WrongPoster", |r| {
            r.username = "system:serviceaccount:default:cni-node".into();
        }),
        ("WrongPoster", |r| r.username = "system:node:n1".into()),
        ("WrongPoster", |r| r.username = String::new()),
        ("TokenNotBound", |r| {
            r.extra.remove(names::EXTRA_NODE_NAME);
        }),
        ("TokenNotBound", |r| {
            r.extra.remove(names::EXTRA_POD_NAME);
        }),
        ("TokenNotBound", |r| {
            r.extra.insert(
                names::EXTRA_NODE_NAME.into(),
                vec!["n1".into(), "n2".into()],
            );
        }),
        ("TokenNotBound", |r| {
            r.extra
                .insert(names::EXTRA_NODE_NAME.into(), vec![String::new()]);
        }),
        ("OtherNode", |r| {
            r.extra
                .insert(names::EXTRA_NODE_NAME.into(), vec!["n2".into()]);
        }),
        ("OtherNode", |r| {
            // The name of another node, whose hash this would be, is not its own chassis name.
            let victim = names::chassis(&"v".repeat(80));
            r.params.distinguished_name = DistinguishedName::new();
            r.params
                .distinguished_name
                .push(DnType::CommonName, victim.as_str());
            r.extra.insert(names::EXTRA_NODE_NAME.into(), vec![victim]);
        }),
        ("WrongUsages", |r| r.usages.push("server auth".into())),
        ("WrongUsages", |r| {
            r.usages.pop();
        }),
        ("WrongUsages", |r| {
            r.usages = vec!["client auth".into(), "client auth".into()];
        }),
        ("WrongSubject", |r| {
            r.params.distinguished_name = DistinguishedName::new();
        }),
        ("WrongSubject", |r| {
            r.params
                .distinguished_name
                .push(DnType::OrganizationName, "system:masters");
        }),
        ("WrongSubject", |r| {
            r.params
                .distinguished_name
                .push(DnType::OrganizationalUnitName, "x");
        }),
        ("WrongExtension", |r| {
            r.params.subject_alt_names = CertificateParams::new(vec!["198.18.0.1".to_owned()])
                .unwrap()
                .subject_alt_names;
        }),
        ("WrongExtension", |r| {
            r.params.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ];
        }),
        ("WrongExtension", |r| {
            r.params.key_usages = vec![
                KeyUsagePurpose::DigitalSignature,
                KeyUsagePurpose::KeyCertSign,
            ];
        }),
        ("WrongExtension", |r| {
            let unknown =
                CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999], vec![5, 0]);
            r.params.custom_extensions = vec![unknown];
        }),
        ("WrongKey", |r| {
            r.key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        }),
        ("Malformed", |r| r.pem = Some(b"not pem".to_vec())),
        ("Malformed", |r| r.pem = Some(Vec::new())),
        ("Malformed", |r| {
            r.pem = Some(vec![b'x'; LARGEST_REQUEST + 1]);
        }),
        ("Malformed", |r| {
            let certificate = r.params.self_signed(&r.key).unwrap();
            r.pem = Some(certificate.pem().into_bytes());
        }),
        ("BadSignature", |r| {
            // The public key of one pair under the signature of another.
            let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
            let mut der = r.params.serialize_request(&r.key).unwrap().der().to_vec();
            let mine = r.key.subject_public_key_info();
            let at = der
                .windows(mine.len())
                .position(|window| window == mine)
                .unwrap();
            der[at..at + mine.len()].copy_from_slice(&other.subject_public_key_info());
            use base64::Engine as _;
            let body = base64::engine::general_purpose::STANDARD.encode(der);
            let pem = format!(
                "-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n"
            );
            r.pem = Some(pem.into_bytes());
        }),
    ];
    for (index, (reason, spoil)) in flaws.iter().enumerate() {
        let mut request = Request::of("n1");
        spoil(&mut request);
        let denial = request
            .verdict()
            .expect_err(&format!("flaw {index} ({reason}) was granted"));
        assert_eq!(denial.reason(), *reason, "flaw {index}: {denial}");
    }
}

#[test]
fn denials_say_what_to_do() {
    let mut request = Request::of("n1");
    request
        .extra
        .insert(names::EXTRA_NODE_NAME.into(), vec!["n2".into()]);
    let sentence = request.verdict().unwrap_err().to_string();
    assert!(
        sentence.contains("\"n1\"") && sentence.contains("\"n2\""),
        "{sentence}"
    );
    request.username = "eve".into();
    let sentence = request.verdict().unwrap_err().to_string();
    assert!(
        sentence.contains("eve") && sentence.contains(names::NODE_USER),
        "{sentence}"
    );
}
