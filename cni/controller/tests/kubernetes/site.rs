//! The API server of all tests, with what `make install` puts there, and objects in it.

use crate::apiserver::ApiServer;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// Nothing here takes this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);
/// The namespace of our own programs.
pub(crate) const SYSTEM: &str = "outboard-system";

/// States of Subnets and Vpcs belong to one leader of the cluster: tests in which somebody writes
/// them come one after the other.
pub(crate) static LEADER: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub(crate) struct Site {
    pub(crate) server: ApiServer,
}

/// The API server of all tests that run at the moment; it ends with the last of them.
pub(crate) fn site() -> Arc<Site> {
    static SHARED: Mutex<Weak<Site>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(site) = shared.upgrade() {
        return site;
    }
    let site = Arc::new(Site::start());
    *shared = Arc::downgrade(&site);
    site
}

/// A name that no other test has.
pub(crate) fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A connection to the API server at `url`, as a user.
pub(crate) fn client(url: &str, user: &str) -> Client {
    let mut config = kube::Config::new(url.parse().unwrap());
    config.accept_invalid_certs = true;
    config.auth_info.token = Some(user.to_owned().into());
    config.read_timeout = Some(Duration::from_secs(10));
    config.reset_reader_on_write = true;
    Client::try_from(config).unwrap()
}

impl Site {
    fn start() -> Self {
        let server = ApiServer::start();
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let file = |path: &str| checkout.join(path).display().to_string();
        let base = [
            "namespace",
            "node-rbac",
            "node-host-rbac",
            "node-dpu-rbac",
            "controller-rbac",
        ]
        .map(|name| file(&format!("manifests/base/{name}.yaml")));
        let nads = file("e2e/manifests/network-attachment-definitions.yaml");
        let crds = file("manifests/crds");
        let apply = |arguments: &[&str]| {
            let all = [&["apply", "--server-side"], arguments].concat();
            server.kubectl("admin", &all, "").unwrap()
        };
        for base in &base {
            apply(&["-n", SYSTEM, "-f", base]);
        }
        apply(&["-f", &nads]);
        apply(&["-k", &crds]);
        let served = [
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            "crd",
            "--all",
        ];
        server.kubectl("admin", &served, "").unwrap();
        let policies = file("manifests/base/admission-dpu.yaml");
        apply(&["-f", &policies]);
        let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}},
            {"apiVersion": "iaas.yusur.io/v1", "kind": "Vpc", "metadata": {"name": "default"}, "spec": {}},
            {"apiVersion": "iaas.yusur.io/v1", "kind": "Subnet", "metadata": {"name": "default"},
                "spec": {"cidrs": ["10.244.0.0/16"], "natOutgoing": true}},
            {"apiVersion": "iaas.yusur.io/v1", "kind": "Subnet", "metadata": {"name": "join"},
                "spec": {"cidrs": ["100.64.0.0/16"]}},
        ]});
        server
            .kubectl("admin", &["create", "-f", "-"], &objects.to_string())
            .unwrap();
        Self { server }
    }

    /// A connection of an administrator, for the runtime that it is made in.
    pub(crate) fn admin(&self) -> Client {
        client(&self.server.url(), "admin")
    }
}

/// A namespace of one test.
pub(crate) struct Space {
    pub(crate) client: Client,
    pub(crate) name: String,
}

impl Space {
    pub(crate) async fn create(client: Client) -> Self {
        let name = fresh("space");
        let object = json!({"metadata": {"name": name}});
        create::<Namespace>(&Api::all(client.clone()), object).await;
        Self { client, name }
    }

    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// A pod that is bound to a node which does not exist.
    pub(crate) async fn pod(&self, name: &str) -> Pod {
        self.pod_with(name, &json!({})).await
    }

    pub(crate) async fn pod_with(&self, name: &str, annotations: &Value) -> Pod {
        let object = json!({
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "b"}]},
        });
        create(&self.all(), object).await
    }

    pub(crate) async fn pods(&self, names: impl IntoIterator<Item = u32>) {
        for n in names {
            self.pod(&format!("p{n}")).await;
        }
    }

    /// Without a kubelet nobody is waited for.
    pub(crate) async fn delete(&self, name: &str) {
        let now = DeleteParams::default().grace_period(0);
        self.all::<Pod>().delete(name, &now).await.unwrap();
    }

    /// The name of the pod's port in its first second network, of this subnet.
    pub(crate) fn port_in(&self, pod: &str, subnet: &str) -> String {
        format!("{}/{pod}/{subnet}/net1", self.name)
    }
}

pub(crate) async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// The object, once it is so.
pub(crate) async fn until<K>(api: &Api<K>, name: &str, what: &str, is_so: impl Fn(&K) -> bool) -> K
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let last = Mutex::new(None);
    let wait = kube::runtime::wait::await_condition(api.clone(), name, |object: Option<&K>| {
        *last.lock().unwrap() = object.cloned();
        object.is_some_and(&is_so)
    });
    let found = tokio::time::timeout(DEADLINE, wait).await;
    match found {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => panic!("{name}: {what}; it is {:#?}", last.lock().unwrap()),
    }
}

/// Returns when the object is gone.
pub(crate) async fn gone<K>(api: &Api<K>, name: &str)
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let wait = kube::runtime::wait::await_condition(api.clone(), name, |object: Option<&K>| {
        object.is_none()
    });
    let wait = tokio::time::timeout(DEADLINE, wait).await;
    wait.unwrap_or_else(|_| panic!("{name} is still there"))
        .unwrap();
}
