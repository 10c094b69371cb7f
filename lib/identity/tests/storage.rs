//! Both halves at a real kube-apiserver, under the roles that `manifests/csi` gives them: a node comes to its storage certificate, by a
//! token that is bound to a pod on it, and QEMU takes what lies in the directory then.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../api/tests/admission/apiserver.rs"]
mod apiserver;

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use apiserver::ApiServer;
use identity::sign::{self, SignerConfig};
use identity::{Authority, CHASSIS, Leaf, Profile, STORAGE_NODE, ask};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

const NAMESPACE: &str = "outboard-system";
const YEAR: u64 = 365 * 86_400;

fn client(server: &ApiServer, token: &str) -> kube::Client {
    let mut config = kube::Config::new(server.url().parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(token.to_owned().into());
    kube::Client::try_from(config).unwrap()
}

/// Node n1, and a pod of each service account on it.
fn set_up(server: &ApiServer) {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for file in [
        "manifests/base/namespace.yaml",
        "manifests/base/node-rbac.yaml",
        "manifests/csi/node-rbac.yaml",
        "manifests/csi/controller-rbac.yaml",
    ] {
        let file = checkout.join(file).display().to_string();
        let apply = ["apply", "--server-side", "-n", NAMESPACE, "-f", &file];
        server.kubectl("admin", &apply, "").unwrap();
    }
    let mut objects = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n".to_owned();
    for account in ["csi-node", "cni-node", "csi-controller"] {
        objects.push_str(&format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {account}, namespace: {NAMESPACE}}}\nspec: {{nodeName: n1, serviceAccountName: {account}, containers: [{{name: a, image: b}}]}}\n"
        ));
    }
    let create = ["create", "-f", "-"];
    server.kubectl("admin", &create, &objects).unwrap();
}

/// A token as kubelet projects it into the account's pod on n1.
fn token(server: &ApiServer, account: &str) -> String {
    let kubectl = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        server.kubectl("admin", &words, "").unwrap()
    };
    let uid = kubectl(&format!(
        "get pod {account} -n {NAMESPACE} -o jsonpath={{.metadata.uid}}"
    ));
    let token = kubectl(&format!(
        "create token {account} -n {NAMESPACE} --bound-object-kind=Pod --bound-object-name={account} --bound-object-uid={uid}"
    ));
    token.trim().to_owned()
}

/// The CA's certificate and key.
fn authority(dir: &Path) -> (PathBuf, PathBuf) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(DnType::CommonName, "storage CA");
    let files = (dir.join("tls.crt"), dir.join("tls.key"));
    std::fs::write(&files.0, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}

fn asking(dir: &Path, name: &str) -> ask::Args {
    ask::Args {
        node: "n1".to_owned(),
        directory: dir.join(name),
        ca: dir.join("tls.crt"),
        lifetime_seconds: i32::try_from(3 * YEAR).unwrap(),
        timeout_seconds: 30,
        once: true,
        keep: false,
    }
}

/// QEMU checks a directory of credentials when the object is made, before it opens anything.
fn accepted_by_qemu(directory: &Path, endpoint: &str) {
    let credentials = format!(
        "tls-creds-x509,id=t,dir={},endpoint={endpoint},verify-peer=on",
        directory.display()
    );
    let image = "driver=null-co,size=1M,read-zeroes=on";
    let output = Command::new("qemu-img")
        .args(["info", "--object", &credentials, "--image-opts", image])
        .output()
        .expect("qemu-img, which `make setup` installs");
    assert!(
        output.status.success(),
        "{endpoint}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_to_its_storage_certificate() {
    let server = ApiServer::start();
    set_up(&server);
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = authority(dir.path());
    let controller = client(&server, &token(&server, "csi-controller"));
    let config = SignerConfig {
        certificate: certificate.clone(),
        key: key.clone(),
        lifetime: Duration::from_secs(2 * YEAR),
        profile: STORAGE_NODE,
    };
    let signer = tokio::spawn(sign::run(controller, config));

    let own = token(&server, "csi-node");
    let args = asking(dir.path(), "identity");
    let obtained = ask::obtain(&STORAGE_NODE, &args, client(&server, &own)).await;
    obtained.unwrap();
    let pem = std::fs::read(args.directory.join("tls.crt")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let leaf = pem.parse_x509().unwrap();
    assert_eq!(leaf.subject().to_string(), "O=storage.iaas.yusur.io, CN=n1");
    let validity = leaf.validity();
    let lifetime = validity.not_after.timestamp() - validity.not_before.timestamp();
    let limit = i64::try_from(2 * YEAR).unwrap();
    assert_eq!(lifetime, limit + 300, "the signer's own limit");
    accepted_by_qemu(&args.directory, "client");
    accepted_by_qemu(&args.directory, "server");

    // Each kind of certificate is for its own poster alone.
    let refused = async |profile: &Profile, token: &str, name: &str| {
        let args = asking(dir.path(), name);
        let client = client(&server, token);
        let obtained = ask::obtain(profile, &args, client).await;
        obtained.unwrap_err().to_string()
    };
    let other = token(&server, "cni-node");
    let sentence = refused(&STORAGE_NODE, &other, "stranger").await;
    assert!(
        sentence.contains("WrongPoster") && sentence.contains("csi-controller's log"),
        "{sentence}"
    );
    let nameless = Profile {
        server: false,
        ..STORAGE_NODE
    };
    let sentence = refused(&nameless, &own, "nameless").await;
    assert!(sentence.contains("WrongUsages"), "{sentence}");
    let may_sign = |profile: &Profile| {
        let review = format!(
            "apiVersion: authorization.k8s.io/v1\nkind: SubjectAccessReview\nspec: {{user: 'system:serviceaccount:{NAMESPACE}:csi-controller', resourceAttributes: {{group: certificates.k8s.io, resource: signers, name: {}, verb: sign}}}}\n",
            profile.signer
        );
        let ask = ["create", "-f", "-", "-o", "jsonpath={.status.allowed}"];
        server.kubectl("admin", &ask, &review).unwrap() == "true"
    };
    assert!(may_sign(&STORAGE_NODE) && !may_sign(&CHASSIS));

    // What csi-controller makes for a target by itself.
    let authority = Authority::load(&certificate, &key).unwrap();
    let target = Leaf {
        common_name: "target".to_owned(),
        ip_addresses: vec![Ipv4Addr::new(198, 18, 0, 1).into()],
        server: true,
        ..Leaf::default()
    };
    let issued = authority.issue(&target, Duration::from_secs(3600), SystemTime::now());
    let issued = issued.unwrap();
    let home = dir.path().join("target");
    std::fs::create_dir(&home).unwrap();
    let write = |name: &str, text: &str| std::fs::write(home.join(name), text).unwrap();
    write("ca-cert.pem", authority.certificate_pem());
    write("server-cert.pem", &issued.certificate_pem);
    write("server-key.pem", &issued.key_pem);
    accepted_by_qemu(&home, "server");
    signer.abort();
}
