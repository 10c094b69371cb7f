//! Nodes of a real kube-apiserver, and certificates of a CA that csi-controller alone has.

use std::path::Path;
use std::time::Duration;

use identity::{Authority, Leaf};
use proto::csi::v1::ProbeRequest;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::apiserver::ApiServer;
use crate::dpu::{Dpu, Pems};
use crate::proxy::Proxy;
use crate::world::{World, run};

pub(crate) const TESTS: &[(&str, fn())] = &[
    ("nodes_come_from_kubernetes", nodes_come_from_kubernetes),
    (
        "a_target_gets_its_certificates",
        a_target_gets_its_certificates,
    ),
];

const DRIVER: &str = "csi.iaas.yusur.io";

/// A CA in `dir`.
fn authority(dir: &Path) -> Authority {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
    std::fs::create_dir(dir).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let name = &mut params.distinguished_name;
    name.push(DnType::CommonName, "storage CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key).unwrap();
    let (crt, private) = (dir.join("tls.crt"), dir.join("tls.key"));
    std::fs::write(&crt, certificate.pem()).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();
    Authority::load(&crt, &private).unwrap()
}

/// As a node has it.
fn certificate(authority: &Authority, node: &str) -> Pems {
    let leaf = Leaf {
        common_name: node.to_owned(),
        dns_names: vec![node.to_owned()],
        server: true,
        ..Leaf::default()
    };
    let made = authority.issue(
        &leaf,
        Duration::from_secs(3600),
        std::time::SystemTime::now(),
    );
    let made = made.unwrap();
    Pems {
        ca: authority.certificate_pem().to_owned(),
        cert: made.certificate_pem,
        key: made.key_pem,
    }
}

fn kubeconfig(world: &World, url: &str) -> String {
    let path = world.path("kubeconfig").display().to_string();
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters: [{{name: test, cluster: {{server: \"{url}\", insecure-skip-tls-verify: true}}}}]\n\
         users: [{{name: test, user: {{token: admin}}}}]\n\
         contexts: [{{name: test, context: {{cluster: test, user: test}}}}]\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn node(name: &str, address: &str, out_of_service: bool) -> Value {
    let taint =
        json!({"key": "node.kubernetes.io/out-of-service", "value": "x", "effect": "NoExecute"});
    let taints = if out_of_service { vec![taint] } else { vec![] };
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"taints": taints},
        "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
    })
}

fn csi_node(name: &str, most: u32) -> Value {
    let driver = json!({
        "name": DRIVER, "nodeID": name, "topologyKeys": ["storage.iaas.yusur.io/node"], "allocatable": {"count": most},
    });
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": name}, "spec": {"drivers": [driver]},
    })
}

fn kubectl(server: &ApiServer, arguments: &[&str], input: &str) -> String {
    server.kubectl("admin", arguments, input).unwrap()
}

fn create(server: &ApiServer, object: &Value) {
    kubectl(server, &["create", "-f", "-"], &object.to_string());
}

/// Publishes again and again until the answer is this one: what changed in the cluster comes in a moment.
async fn publish(world: &World, id: &str, node: &str, code: Code) -> Status {
    let mut last = None;
    for _ in 0..500 {
        let answer = world.publish(id, node).await;
        let answer = answer.err().unwrap_or_else(|| Status::ok(""));
        if answer.code() == code {
            return answer;
        }
        last = Some(answer);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{id} at {node}: not {code:?} but {last:?}");
}

fn nodes_come_from_kubernetes() {
    run(async {
        let mut world = World::prepared().await;
        let ca = authority(&world.path("ca"));
        let n1 = Dpu::new(world.dir.path(), "n1");
        let port = n1.serve_tls(&certificate(&ca, "n1"), "127.0.1.1:0").await;
        let n2 = Dpu::new(world.dir.path(), "n2");
        n2.serve_tls(&certificate(&ca, "n2"), &format!("[::1]:{port}"))
            .await;
        world.file = false;
        world.flags = vec![
            format!("--ca={}", world.path("ca").display()),
            format!("--node-port={port}"),
            format!("--exports-dir={}/{{node}}", world.path("exports").display()),
        ];

        // An API server that is not there: what needs no node works.
        let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", nowhere.local_addr().unwrap());
        drop(nowhere);
        let config = kubeconfig(&world, &url);
        world.spawn(&[("KUBECONFIG", &config)]);
        world.probes(Some(false)).await;
        let [a, b] = [world.create("a", 1).await, world.create("b", 1).await];
        for unknown in [
            world.publish(&a, "n1").await.unwrap_err(),
            world.publish(&a, "nobody").await.unwrap_err(),
        ] {
            assert_eq!(unknown.code(), Code::Unavailable, "{unknown}");
            assert!(unknown.message().contains("are not known yet"), "{unknown}");
        }
        world.kill().await;

        let server = tokio::task::spawn_blocking(ApiServer::start).await.unwrap();
        let proxy = Proxy::to(&server.url()).await;
        let config = kubeconfig(&world, &proxy.url());
        world.start(&[("KUBECONFIG", &config)]).await;
        publish(&world, &a, "n1", Code::NotFound).await;
        create(&server, &node("n1", "127.0.1.1", false));
        let error = publish(&world, &a, "n1", Code::Unavailable).await;
        assert!(
            error.message().contains("its CSINode does not list"),
            "{error}"
        );
        create(&server, &csi_node("n1", 1));
        publish(&world, &a, "n1", Code::Ok).await;
        let caller = n1.caller().unwrap();
        assert!(caller.contains("CN=system:csi-controller"), "{caller}");
        let error = publish(&world, &b, "n1", Code::ResourceExhausted).await;
        assert!(error.message().contains("its limit is 1"), "{error}");

        // csi-node-host is being replaced: kubelet takes the driver out of the CSINode for that time.
        kubectl(&server, &["delete", "csinode", "n1"], "");
        publish(&world, &b, "n1", Code::Unavailable).await;
        n1.calls();
        world.unpublish(&a, "n1").await.unwrap();
        assert_eq!(n1.calls(), ["Detach"], "in good order");

        create(&server, &csi_node("n1", 2));
        publish(&world, &a, "n1", Code::Ok).await;
        publish(&world, &b, "n1", Code::Ok).await;
        n1.in_use(true);
        let error = world.unpublish(&a, "n1").await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
        let taint = "node.kubernetes.io/out-of-service=x:NoExecute";
        kubectl(&server, &["taint", "node", "n1", taint], "");
        for tries in 0.. {
            if world.unpublish(&a, "n1").await.is_ok() {
                break;
            }
            assert!(tries < 500, "the taint changes nothing");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(world.published(&a).await, [""; 0]);

        // The Node goes while a volume is there: the fence needs nobody. And it goes unseen.
        proxy.close();
        kubectl(&server, &["delete", "node", "n1"], "");
        proxy.open(&server.url());
        publish(&world, &a, "n1", Code::NotFound).await;
        n1.calls();
        assert_eq!(world.published(&b).await, ["n1"]);
        let begun = std::time::Instant::now();
        world.unpublish(&b, "n1").await.unwrap();
        // Until it was known it could be published there.
        world.unpublish(&a, "").await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!((n1.calls(), world.published(&b).await), (vec![], vec![]));

        create(&server, &node("n2", "::1", false));
        create(&server, &csi_node("n2", 8));
        publish(&world, &a, "n2", Code::Ok).await;
        denied(&server).await;
        // What is known stays known.
        drop(server);
        world.unpublish(&a, "n2").await.unwrap();
        publish(&world, &a, "n2", Code::Ok).await;
        let ready = world.identity().probe(ProbeRequest {}).await.unwrap();
        assert_eq!(ready.into_inner().ready, Some(true));
        world.unpublish(&a, "n2").await.unwrap();
        for id in [a, b] {
            world.delete(&id).await.unwrap();
        }
        let secret = std::fs::read_to_string(world.path("ca/tls.key")).unwrap();
        let secret = secret.lines().nth(1).unwrap();
        assert!(!world.controller_log().contains(secret));
        assert_eq!(world.leaks().await, [""; 0]);
    });
}

/// Requests for certificates are judged: this one is of an administrator, not of a node.
async fn denied(server: &ApiServer) {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key);
    let request = request.unwrap().pem().unwrap();
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "forged"},
        "spec": {
            "request": k8s_openapi::ByteString(request.into_bytes()), "signerName": "iaas.yusur.io/storage-node",
            "usages": ["digital signature", "client auth", "server auth"],
        },
    });
    create(server, &object);
    for tries in 0.. {
        let seen = kubectl(server, &["get", "csr", "forged", "-o", "json"], "");
        if seen.contains("Denied") {
            assert!(seen.contains("WrongPoster"), "{seen}");
            return;
        }
        assert!(tries < 200, "{seen}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn a_target_gets_its_certificates() {
    run(async {
        let mut world = World::prepared().await;
        let ca = authority(&world.path("ca"));
        let tls = world.path("target");
        let tcp = |name: &str| {
            format!(
                "    tcp: {{address: 127.0.0.1, firstPort: 21809, lastPort: 21832, tlsDirectory: {}, \
                 cardCredentials: card, serverName: {name}}}\n",
                tls.display()
            )
        };
        world.write_backends(&tcp("storage-1"));
        world.flags = vec![format!("--ca={}", world.path("ca").display())];
        let read = |file: &str| std::fs::read_to_string(tls.join(file)).unwrap();
        let mut seen = String::new();
        for (name, made) in [
            ("storage-1", true),
            ("storage-1", false),
            ("storage-2", true),
        ] {
            world.write_backends(&tcp(name));
            world.start(&[]).await;
            assert_eq!(read("ca-cert.pem"), ca.certificate_pem());
            assert_eq!(read("server-cert.pem") != seen, made, "{name}");
            seen = read("server-cert.pem");
            world.kill().await;
        }
    });
}
