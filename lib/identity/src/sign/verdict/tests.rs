//! Forged requests, one flaw each.

use super::*;
use crate::{CHANNEL, CHASSIS, STORAGE_NODE};
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PublicKeyData as _, SanType,
};
use rstest::rstest;

/// A request that is right in everything, to be spoilt.
struct Request {
    profile: Profile,
    params: CertificateParams,
    key: KeyPair,
    username: String,
    extra: BTreeMap<String, Vec<String>>,
    usages: Vec<String>,
    pem: Option<Vec<u8>>,
}

impl Request {
    fn of(profile: &Profile, node: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, names::chassis(node));
        if profile.server {
            params.subject_alt_names = vec![dns(node)];
        }
        let extra = [
            (names::EXTRA_NODE_NAME, node),
            (names::EXTRA_POD_NAME, "cni-node-x"),
        ]
        .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
        .into();
        let usages = profile.usages().iter();
        Self {
            profile: *profile,
            params,
            key: KeyPair::generate().unwrap(),
            username: profile.users[0].to_owned(),
            extra,
            usages: usages.map(|&usage| usage.to_owned()).collect(),
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
        verdict(
            &self.profile,
            &Posted {
                pem: &pem,
                username: &self.username,
                extra: Some(&self.extra),
                usages: &self.usages,
            },
        )
    }

    fn purposes(&self) -> Vec<ExtendedKeyUsagePurpose> {
        let mut purposes = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if self.profile.server {
            purposes.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        purposes
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[rstest]
#[case(CHASSIS)]
#[case(CHANNEL)]
#[case(STORAGE_NODE)]
fn the_request_of_the_nodes_own_pod_is_granted(#[case] profile: Profile) {
    for node in ["n1", "a-node.example.com", &"x".repeat(100)] {
        let request = Request::of(&profile, node);
        let grant = request.verdict().unwrap();
        assert_eq!(grant.common_name, names::chassis(node));
        assert_eq!(grant.dns_name.as_deref(), profile.server.then_some(node));
        assert_eq!(grant.public_key, request.key.subject_public_key_info());
    }
}

#[rstest]
#[case(CHASSIS)]
#[case(CHANNEL)]
#[case(STORAGE_NODE)]
fn harmless_variants_are_granted(#[case] profile: Profile) {
    let mut request = Request::of(&profile, "n1");
    request
        .params
        .distinguished_name
        .push(DnType::OrganizationName, profile.organization);
    request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    request.params.extended_key_usages = request.purposes();
    request.key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    request.usages.reverse();
    assert_eq!(request.verdict().unwrap().common_name, "n1");
}

type Flaw = (&'static str, fn(&mut Request));

/// What nobody may ask for.
const FLAWS: &[Flaw] = &[
    ("WrongPoster", |r| {
        r.username = r.profile.users[0].replace("outboard-system", "default");
    }),
    ("WrongPoster", |r| r.username = "system:node:n1".into()),
    ("WrongPoster", |r| r.username = String::new()),
    ("WrongPoster", |r| {
        // Who may have the other kind of certificate.
        let other = if r.profile.server {
            CHASSIS
        } else {
            STORAGE_NODE
        };
        r.username = other.users[0].into();
    }),
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
        // All is node n2's but the token.
        *r = Request {
            extra: r.extra.clone(),
            ..Request::of(&r.profile, "n2")
        };
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
    ("WrongUsages", |r| r.usages.push("code signing".into())),
    ("WrongUsages", |r| {
        r.usages.pop();
    }),
    ("WrongUsages", |r| {
        r.usages.retain(|usage| usage != "digital signature");
        r.usages.push("client auth".into());
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
        let other = if r.profile.server {
            CHASSIS
        } else {
            STORAGE_NODE
        };
        r.params
            .distinguished_name
            .push(DnType::OrganizationName, other.organization);
    }),
    ("WrongSubject", |r| {
        r.params
            .distinguished_name
            .push(DnType::OrganizationalUnitName, "x");
    }),
    ("WrongExtension", |r| {
        r.params.extended_key_usages = r.purposes();
        r.params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::CodeSigning);
    }),
    ("WrongExtension", |r| {
        r.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    }),
    ("WrongExtension", |r| {
        r.params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
        ];
    }),
    ("WrongExtension", |r| {
        let unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99_999], vec![5, 0]);
        r.params.custom_extensions = vec![unknown];
    }),
    ("WrongExtension", |r| {
        // CA:TRUE, RFC 5280 4.2.1.9.
        let ca = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 3, 1, 1, 0xff]);
        r.params.custom_extensions = vec![ca];
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

/// What only a server may ask for.
const CHASSIS_FLAWS: &[Flaw] = &[
    ("WrongExtension", |r| {
        r.params.subject_alt_names = vec![SanType::IpAddress("198.18.0.1".parse().unwrap())];
    }),
    ("WrongExtension", |r| {
        r.params.subject_alt_names = vec![dns("n1")];
    }),
    ("WrongExtension", |r| {
        r.params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
    }),
];

/// A server's names are its own alone.
const SERVER_FLAWS: &[Flaw] = &[
    ("WrongNames", |r| r.params.subject_alt_names.clear()),
    ("WrongNames", |r| {
        r.params.subject_alt_names = vec![dns("n2")];
    }),
    ("WrongNames", |r| r.params.subject_alt_names.push(dns("n2"))),
    ("WrongNames", |r| r.params.subject_alt_names.push(dns("n1"))),
    ("WrongNames", |r| {
        r.params.subject_alt_names = vec![dns("*")];
    }),
    ("WrongNames", |r| {
        r.params.subject_alt_names = vec![dns("*.n1")];
    }),
    ("WrongNames", |r| {
        r.params.subject_alt_names = vec![dns("N1")];
    }),
    ("WrongNames", |r| {
        r.params.subject_alt_names = vec![dns("system:csi-controller")];
    }),
    ("WrongNames", |r| {
        r.params.subject_alt_names = vec![SanType::IpAddress("198.18.0.1".parse().unwrap())];
    }),
    ("WrongNames", |r| {
        let address = SanType::IpAddress("198.18.0.1".parse().unwrap());
        r.params.subject_alt_names.push(address);
    }),
    ("WrongNames", |r| {
        r.params.subject_alt_names = vec![SanType::URI("n1".try_into().unwrap())];
    }),
    ("WrongNames", |r| {
        r.params.subject_alt_names = vec![SanType::Rfc822Name("n1".try_into().unwrap())];
    }),
    ("WrongNames", |r| {
        // A second extension of the same kind: DNS name n2.
        let names = vec![0x30, 4, 0x82, 2, b'n', b'2'];
        let second = CustomExtension::from_oid_content(&[2, 5, 29, 17], names);
        r.params.custom_extensions = vec![second];
    }),
    ("WrongUsages", |r| {
        r.usages.retain(|usage| usage != "server auth");
    }),
    ("WrongUsages", |r| {
        r.usages.retain(|usage| usage != "client auth");
    }),
    ("WrongExtension", |r| {
        r.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    }),
    ("OtherNode", |r| {
        r.params.distinguished_name = DistinguishedName::new();
        r.params.distinguished_name.push(DnType::CommonName, "n2");
    }),
    ("OtherNode", |r| {
        r.params.distinguished_name = DistinguishedName::new();
        r.params
            .distinguished_name
            .push(DnType::CommonName, "system:csi-controller");
    }),
];

#[rstest]
#[case(CHASSIS, FLAWS)]
#[case(CHANNEL, FLAWS)]
#[case(STORAGE_NODE, FLAWS)]
#[case(CHASSIS, CHASSIS_FLAWS)]
#[case(CHANNEL, SERVER_FLAWS)]
#[case(STORAGE_NODE, SERVER_FLAWS)]
fn forged_requests_are_denied_with_a_reason(#[case] profile: Profile, #[case] flaws: &[Flaw]) {
    for (index, (reason, spoil)) in flaws.iter().enumerate() {
        let mut request = Request::of(&profile, "n1");
        spoil(&mut request);
        let denial = request
            .verdict()
            .expect_err(&format!("flaw {index} ({reason}) was granted"));
        assert_eq!(denial.reason(), *reason, "flaw {index}: {denial}");
    }
}

#[test]
fn the_request_for_one_kind_gets_none_of_the_other() {
    for (asked, given) in [(CHASSIS, STORAGE_NODE), (STORAGE_NODE, CHASSIS)] {
        let mut request = Request::of(&asked, "n1");
        request.profile = given;
        assert_eq!(request.verdict().unwrap_err().reason(), "WrongPoster");
        // Nor were the poster right.
        request.username = given.users[0].to_owned();
        assert_eq!(request.verdict().unwrap_err().reason(), "WrongUsages");
    }
}

#[test]
fn a_host_is_no_chassis_and_a_chassis_no_host_and_a_dpu_is_both() {
    for (user, chassis, channel) in [
        (names::NODE_USER, true, false),
        (names::NODE_HOST_USER, false, true),
        (names::NODE_DPU_USER, true, true),
        (api::storage::NODE_USER, false, false),
    ] {
        for (profile, granted) in [(CHASSIS, chassis), (CHANNEL, channel)] {
            let mut request = Request::of(&profile, "n1");
            request.username = user.to_owned();
            let reason = request.verdict().map_err(|denial| denial.reason()).err();
            let expected = (!granted).then_some("WrongPoster");
            assert_eq!(reason, expected, "{user}: {}", profile.kind);
        }
    }
    // A DPU that asks for the one does not get the other's organization.
    for (profile, other) in [(CHASSIS, CHANNEL), (CHANNEL, CHASSIS)] {
        let mut request = Request::of(&profile, "n1");
        request.username = names::NODE_DPU_USER.to_owned();
        request
            .params
            .distinguished_name
            .push(DnType::OrganizationName, other.organization);
        assert_eq!(request.verdict().unwrap_err().reason(), "WrongSubject");
    }
}

#[test]
fn denials_say_what_to_do() {
    let mut request = Request::of(&CHASSIS, "n1");
    request
        .extra
        .insert(names::EXTRA_NODE_NAME.into(), vec!["n2".into()]);
    assert_eq!(
        request.verdict().unwrap_err().to_string(),
        "the common name is \"n1\", but the token is bound to node \"n2\", whose chassis is \"n2\""
    );
    request.username = "eve".into();
    assert_eq!(
        request.verdict().unwrap_err().to_string(),
        "posted by \"eve\": only system:serviceaccount:outboard-system:cni-node and system:serviceaccount:outboard-system:cni-node-dpu may ask for chassis certificates"
    );
    request = Request::of(&CHASSIS, "n1");
    request.usages.clear();
    assert_eq!(
        request.verdict().unwrap_err().to_string(),
        "usages are []: ask for exactly \"digital signature\" and \"client auth\""
    );
    request = Request::of(&STORAGE_NODE, "n1");
    request.params.subject_alt_names.push(dns("n2"));
    assert_eq!(
        request.verdict().unwrap_err().to_string(),
        "the subject alternative names are [\"DNSName(n1)\", \"DNSName(n2)\"]: ask for exactly one, DNS name \"n1\""
    );
}
