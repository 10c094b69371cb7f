//! Who asks. Over mTLS the certificate says it: one of its names is csi-controller's, or a served node's. On a unix socket the socket says
//! it: each role has its own.

use std::sync::Arc;

use mtls::Peer;
use tonic::{Request, Status};

/// A caller, in a request's extensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// csi-controller.
    Controller,
    /// The csi-node-host of this served node.
    Host(String),
    /// Somebody else, with these names.
    Other(Vec<String>),
}

/// Who may be who. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    controller: Arc<str>,
    serves: Arc<[String]>,
}

impl Names {
    pub(crate) fn new(controller: &str, serves: &[String]) -> Self {
        Self {
            controller: controller.into(),
            serves: serves.into(),
        }
    }

    /// The nodes that are served.
    pub(crate) fn serves(&self, node: &str) -> bool {
        self.serves.iter().any(|served| served == node)
    }

    /// For sentences.
    pub(crate) fn served(&self) -> String {
        self.serves.join(", ")
    }

    /// An interceptor of the mTLS listener.
    #[allow(clippy::result_large_err, reason = "the type of tonic's interceptors")]
    pub(crate) fn certified(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let peer = request.extensions().get::<Peer>();
        let peer =
            peer.ok_or_else(|| Status::permission_denied("a client certificate is needed"))?;
        let caller = self.caller(peer.names());
        request.extensions_mut().insert(caller);
        Ok(request)
    }

    fn caller(&self, names: Vec<String>) -> Caller {
        if names.iter().any(|name| **name == *self.controller) {
            return Caller::Controller;
        }
        // With the names of several hosts it is nobody's: which one it is must not be a guess.
        let mut hosts = self.serves.iter().filter(|host| names.contains(host));
        match (hosts.next(), hosts.next()) {
            (Some(host), None) => Caller::Host(host.clone()),
            _ => Caller::Other(names),
        }
    }
}

/// An interceptor of a unix socket, whose callers are all `caller`.
#[allow(clippy::result_large_err, reason = "the type of tonic's interceptors")]
pub(crate) fn local(
    caller: Caller,
) -> impl FnMut(Request<()>) -> Result<Request<()>, Status> + Clone {
    move |mut request| {
        request.extensions_mut().insert(caller.clone());
        Ok(request)
    }
}

/// Lets csi-controller pass.
#[allow(clippy::result_large_err, reason = "an answer")]
pub(crate) fn controller<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Controller) => Ok(()),
        caller => Err(denied(caller, "only csi-controller may")),
    }
}

/// Lets the csi-node-host of a served node pass, and says which node that is.
#[allow(clippy::result_large_err, reason = "an answer")]
pub(crate) fn host<T>(request: &Request<T>) -> Result<String, Status> {
    match request.extensions().get::<Caller>() {
        Some(Caller::Host(host)) => Ok(host.clone()),
        caller => Err(denied(
            caller,
            "only the csi-node-host of a node that this DPU serves may",
        )),
    }
}

fn denied(caller: Option<&Caller>, who: &str) -> Status {
    let name = match caller {
        Some(Caller::Controller) => "csi-controller".to_owned(),
        Some(Caller::Host(host)) => format!("node {host}"),
        Some(Caller::Other(names)) => names.join(", "),
        None => "an unknown caller".to_owned(),
    };
    Status::permission_denied(format!(
        "{name}: {who} ask this; check the certificate and --serves-node"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_says_who_calls() {
        let names = Names::new("system:csi-controller", &["n1".to_owned(), "n2".to_owned()]);
        let of = |given: &[&str]| names.caller(given.iter().map(|&name| name.to_owned()).collect());
        assert_eq!(of(&["system:csi-controller"]), Caller::Controller);
        assert_eq!(of(&["x", "n2"]), Caller::Host("n2".to_owned()));
        assert!(matches!(of(&["n1", "n2"]), Caller::Other(_)));
        assert!(matches!(of(&["n3"]), Caller::Other(_)));
        assert!(matches!(of(&[]), Caller::Other(_)));
    }
}
