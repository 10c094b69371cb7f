//! The lab that tests share, and pods in it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use e2e::{CniCall, CniLab, CniOutcome, CniSandbox, Node, PodRow, PodSpec, until};
use serde_json::{Value, json};

pub(crate) const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The lab of all tests that run at the moment; it ends with the last of them.
pub(crate) fn world() -> Arc<CniLab> {
    static SHARED: Mutex<Weak<CniLab>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lab) = shared.upgrade() {
        return lab;
    }
    let lab = Arc::new(CniLab::up(2).unwrap());
    *shared = Arc::downgrade(&lab);
    lab
}

/// A name that no other test has.
pub(crate) fn fresh(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A network configuration; `more` may replace its keys.
pub(crate) fn config(version: &str, more: &Value) -> Value {
    let mut config = json!({
        "cniVersion": version, "name": "pods", "type": "outboard", "timeoutSeconds": 20,
    });
    let keys = config.as_object_mut().unwrap();
    keys.extend(more.as_object().unwrap().clone());
    config
}

/// A pod that was scheduled, and its sandbox.
pub(crate) struct Pod<'a> {
    pub(crate) row: PodRow,
    pub(crate) sandbox: CniSandbox<'a>,
}

impl<'a> Pod<'a> {
    pub(crate) fn new(lab: &CniLab, node: &'a Node, prefix: &str) -> Self {
        Self::of(lab, node, &PodSpec::new(&fresh(prefix), node.name()))
    }

    pub(crate) fn of(lab: &CniLab, node: &'a Node, spec: &PodSpec) -> Self {
        let pod = Self::unwritten(lab, node, spec);
        lab.network.write(std::slice::from_ref(&pod.row)).unwrap();
        pod
    }

    /// A pod whose port nobody has written (yet).
    pub(crate) fn unwritten(lab: &CniLab, node: &'a Node, spec: &PodSpec) -> Self {
        let sandbox = CniSandbox::create(node, &fresh("sandbox")).unwrap();
        Self {
            row: lab.network.allocate(spec),
            sandbox,
        }
    }

    /// A call about this pod's first interface.
    pub(crate) fn call(&self, verb: &str, version: &str, more: &Value) -> CniCall {
        CniCall::new(verb, config(version, more).to_string()).of(&self.sandbox, &self.row)
    }

    pub(crate) fn run(&self, verb: &str, version: &str, more: &Value) -> CniOutcome {
        self.call(verb, version, more)
            .run(self.sandbox.node())
            .unwrap()
    }

    /// An ADD that must succeed.
    #[track_caller]
    pub(crate) fn add(&self, version: &str) -> Value {
        self.run("ADD", version, &json!({})).result().unwrap()
    }

    pub(crate) fn check(&self, version: &str, result: &Value) -> CniOutcome {
        self.run("CHECK", version, &json!({"prevResult": result}))
    }

    /// A DEL that must succeed, and says nothing.
    #[track_caller]
    pub(crate) fn del(&self, version: &str) {
        let printed = self.run("DEL", version, &json!({})).result().unwrap();
        assert_eq!(printed, Value::Null);
    }

    /// Waits until an address answers: the other node's tunnel may just be coming up.
    #[track_caller]
    pub(crate) fn reaches(&self, address: &str) {
        let what = format!("{} to reach {address}", self.row.port);
        until(&what, Duration::from_secs(20), || {
            self.sandbox.ping(address).map(Some)
        })
        .unwrap();
    }

    /// Nothing of this pod's sandbox is left on its node.
    #[track_caller]
    pub(crate) fn left_nothing(&self) {
        let node = self.sandbox.node();
        let find = ["ovs-vsctl", "--bare", "--columns=name", "find", "interface"];
        let mine = format!("external_ids:sandbox={}", self.sandbox.container);
        assert_eq!(node.exec(&[&find[..], &[&mine]].concat()).unwrap(), "");
        assert!(
            self.sandbox
                .exec(&["ip", "link", "show", "dev", "eth0"])
                .is_err()
        );
    }
}

/// The host's end of an attachment, as its result names it.
pub(crate) fn host_link(result: &Value) -> &str {
    let interfaces = result["interfaces"].as_array().unwrap();
    let host = interfaces
        .iter()
        .find(|interface| interface.get("sandbox").is_none());
    host.unwrap()["name"].as_str().unwrap()
}

/// A key of an OVS Interface's external_ids.
pub(crate) fn external_id(node: &Node, interface: &str, key: &str) -> String {
    let argv = [
        "ovs-vsctl",
        "--if-exists",
        "get",
        "interface",
        interface,
        &format!("external_ids:{key}"),
    ];
    node.exec(&argv).unwrap().trim_matches('"').to_string()
}
