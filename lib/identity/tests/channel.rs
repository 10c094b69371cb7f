//! The network's certificates and the pairing at a real kube-apiserver, under the roles that `manifests/base` gives to the accounts of
//! hosts, DPUs and plain nodes.
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../../api/tests/admission/apiserver.rs"]
mod apiserver;
#[allow(dead_code, reason = "the controller's tests use all of it")]
#[path = "../../../cni/controller/tests/kubernetes/proxy.rs"]
mod proxy;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::pairing::{PAIRING_FILE, Pairing};
use apiserver::ApiServer;
use identity::ask::{self, pairing};
use identity::sign::{self, SignerConfig};
use identity::{CHANNEL, CHASSIS, Profile};
use proxy::Proxy;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};

const NAMESPACE: &str = "outboard-system";
const DEADLINE: Duration = Duration::from_secs(40);

fn client(url: &str, token: &str) -> kube::Client {
    let mut config = kube::Config::new(url.parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(token.to_owned().into());
    kube::Client::try_from(config).unwrap()
}

/// Nodes h1, d1 and n1, on each a pod of the account that runs there.
fn set_up(server: &ApiServer) {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = |name: &str| checkout.join(name).display().to_string();
    for name in [
        "namespace",
        "controller-rbac",
        "node-rbac",
        "node-host-rbac",
        "node-dpu-rbac",
    ] {
        let file = file(&format!("manifests/base/{name}.yaml"));
        let apply = ["apply", "--server-side", "-n", NAMESPACE, "-f", &file];
        server.kubectl("admin", &apply, "").unwrap();
    }
    let crds = ["apply", "--server-side", "-k", &file("manifests/crds")];
    server.kubectl("admin", &crds, "").unwrap();
    let served = "wait --for=condition=Established --timeout=30s crd --all";
    let served: Vec<&str> = served.split(' ').collect();
    server.kubectl("admin", &served, "").unwrap();
    let mut objects = String::new();
    for (node, account) in ACCOUNTS {
        objects.push_str(&format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\n---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {account}, namespace: {NAMESPACE}}}\nspec: {{nodeName: {node}, serviceAccountName: {account}, containers: [{{name: a, image: b}}]}}\n"
        ));
    }
    let create = ["create", "-f", "-"];
    server.kubectl("admin", &create, &objects).unwrap();
}

const ACCOUNTS: [(&str, &str); 3] = [
    ("n1", "cni-node"),
    ("h1", "cni-node-host"),
    ("d1", "cni-node-dpu"),
];

/// A token as kubelet projects it into the account's pod.
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

/// A signer of the profile, with a CA of its own.
fn signer(server: &ApiServer, dir: &Path, profile: Profile) -> tokio::task::JoinHandle<()> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(DnType::CommonName, profile.kind);
    let file = |suffix: &str| dir.join(format!("{}.{suffix}", profile.kind));
    let (certificate, key_file) = (file("crt"), file("key"));
    std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let config = SignerConfig {
        certificate,
        key: key_file,
        lifetime: Duration::from_secs(86_400),
        profile,
    };
    tokio::spawn(sign::run(client(&server.url(), "controller"), config))
}

struct World {
    server: ApiServer,
    dir: tempfile::TempDir,
}

impl World {
    /// Asks as the account of that node for its certificate; where it lies then, or why there is none.
    async fn ask(
        &self,
        (node, account): (&str, &str),
        profile: &Profile,
    ) -> Result<PathBuf, String> {
        let directory = self.dir.path().join(format!("{account}-{}", profile.kind));
        let args = ask::Args {
            node: node.to_owned(),
            directory: directory.clone(),
            ca: self.dir.path().join(format!("{}.crt", profile.kind)),
            lifetime_seconds: 3600,
            timeout_seconds: 30,
            once: true,
            keep: false,
        };
        let client = client(&self.server.url(), &token(&self.server, account));
        let asked = ask::obtain(profile, &args, client).await;
        asked.map(|()| directory).map_err(|error| error.to_string())
    }

    fn dpu(&self, name: &str, dpu: &str, host: &str) {
        let object = format!(
            "apiVersion: iaas.yusur.io/v1\nkind: Dpu\nmetadata: {{name: {name}}}\nspec: {{dpuNode: {dpu}, hostNode: {host}, address: 198.18.0.12}}\n"
        );
        let create = ["create", "-f", "-"];
        self.server.kubectl("admin", &create, &object).unwrap();
    }

    fn delete(&self, name: &str) {
        let delete = ["delete", "dpu", name];
        self.server.kubectl("admin", &delete, "").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_account_has_its_own_kinds_of_certificates_and_its_pairing() {
    let server = ApiServer::start();
    set_up(&server);
    let dir = tempfile::tempdir().unwrap();
    let _signers = [CHASSIS, CHANNEL].map(|profile| signer(&server, dir.path(), profile));
    let world = World { server, dir };
    certificates(&world).await;
    pairings(&world).await;
}

async fn certificates(world: &World) {
    let [plain, host, dpu] = ACCOUNTS;
    for account in [host, dpu] {
        let directory = world.ask(account, &CHANNEL).await.unwrap();
        let pem = std::fs::read(directory.join("tls.crt")).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let leaf = pem.parse_x509().unwrap();
        let node = account.0;
        assert_eq!(
            leaf.subject().to_string(),
            format!("O=outboard:channel, CN={node}")
        );
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        let names: Vec<String> = names
            .value
            .general_names
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, [format!("DNSName({node})")]);
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && usage.server_auth);
        assert!(!directory.join("ca-cert.pem").exists(), "no QEMU reads it");
    }
    world.ask(plain, &CHASSIS).await.unwrap();
    world.ask(dpu, &CHASSIS).await.unwrap();
    for (account, profile) in [(host, CHASSIS), (plain, CHANNEL)] {
        let sentence = world.ask(account, &profile).await.unwrap_err();
        assert!(
            sentence.contains("WrongPoster") && sentence.contains(account.1),
            "{sentence}"
        );
    }
}

/// The file, once it is so.
async fn until(directory: &Path, what: &str, is_so: impl Fn(Option<&Pairing>) -> bool) {
    let start = Instant::now();
    loop {
        let text = std::fs::read_to_string(directory.join(PAIRING_FILE)).ok();
        let pairing: Option<Pairing> = text.map(|text| text.parse().unwrap());
        if is_so(pairing.as_ref()) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "{what}; there is {pairing:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn pairings(world: &World) {
    let proxy = Proxy::to(&world.server.url()).await;
    let follow = |node: &'static str, account: &str| {
        let directory = world.dir.path().join(format!("pairing-{node}"));
        let client = client(&proxy.url(), &token(&world.server, account));
        let home = directory.clone();
        let task = tokio::spawn(async move { pairing::follow(client, node, &home).await });
        (directory, task)
    };
    let (host, _following) = follow("h1", "cni-node-host");
    let (dpu, of_dpu) = follow("d1", "cni-node-dpu");
    let named = |name: &'static str| {
        move |pairing: Option<&Pairing>| pairing.is_some_and(|pairing| pairing.dpu == name)
    };

    world.dpu("first", "d1", "h1");
    until(&host, "the first pair", named("d1")).await;
    until(&dpu, "the first pair", named("d1")).await;
    // Creation times have a second's resolution, and of equally old ones the first by name counts.
    world.dpu("second", "d2", "h1");
    world.dpu("unrelated", "d3", "h3");
    world.delete("first");
    until(&host, "the younger one counts now", named("d2")).await;
    until(&dpu, "in no pair", |pairing| pairing.is_none()).await;
    world.dpu("third", "d1", "h1");
    let quiet = tokio::time::timeout(
        Duration::from_millis(500),
        until(&host, "never", named("d1")),
    );
    assert!(quiet.await.is_err(), "the older one counts");

    // While the API server is away the file stays, over a restart too.
    proxy.close();
    world.delete("second");
    of_dpu.abort();
    let (dpu, _again) = follow("d1", "cni-node-dpu");
    let gone = tokio::time::timeout(Duration::from_secs(2), until(&host, "never", named("d1")));
    assert!(gone.await.is_err(), "nobody has said so");
    until(&host, "it stays", named("d2")).await;
    proxy.open(&world.server.url());
    until(&host, "what happened meanwhile", named("d1")).await;
    until(&dpu, "what happened meanwhile", named("d1")).await;

    // And what is asked for once is the same.
    let directory = world.dir.path().join("once");
    let asked = client(&world.server.url(), &token(&world.server, "cni-node-host"));
    pairing::once(asked.clone(), "h1", &directory)
        .await
        .unwrap();
    until(&directory, "once", named("d1")).await;
    world.delete("third");
    until(&host, "deleted", |pairing| pairing.is_none()).await;
    until(&dpu, "deleted", |pairing| pairing.is_none()).await;
    pairing::once(asked, "h1", &directory).await.unwrap();
    assert!(!directory.join(PAIRING_FILE).exists());
    // A plain node's account may not look.
    let stranger = client(&world.server.url(), &token(&world.server, "cni-node"));
    let refused = pairing::once(stranger, "n1", &directory).await;
    assert!(refused.unwrap_err().to_string().contains("service account"));
}
