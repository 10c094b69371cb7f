//! UDP flows that outlived their endpoint: which ones, and forgetting them.
//!
//! New rules do not reach a flow that connection tracking knows: a client that keeps sending from one socket would stay with
//! an endpoint that is gone. As kube-proxy does, flows of a service that lead to what is no endpoint of it are forgotten; their
//! next packet goes by the rules. TCP needs none of this: its clients notice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tracing::{debug, info, warn};

use super::service::{Protocol, Service};
use crate::netlink::{Flow, forget_udp};

/// Where the flows of each UDP service address may lead. A flow that is not translated here leads to the address itself.
type Targets = BTreeMap<SocketAddr, BTreeSet<SocketAddr>>;

/// What the kernel's UDP flows were last compared with.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    agreed: Targets,
}

impl Flows {
    /// Forgets what leads astray now that `services` are served here and `elsewhere` are left to OVN; how many flows that were.
    ///
    /// Failing is no problem of the service: the flows end by themselves when their clients pause. The next call tries again.
    pub(crate) async fn follow(
        &mut self,
        services: &[Service],
        elsewhere: &BTreeSet<SocketAddr>,
    ) -> usize {
        let wanted = targets(services, elsewhere);
        if wanted == self.agreed {
            return 0;
        }
        let compared = with_former(&self.agreed, &wanted);
        let done = tokio::task::spawn_blocking(move || forget_udp(|flow| stale(&compared, flow)));
        match done.await.unwrap_or_else(|died| Err(died.into())) {
            Ok(flows) => {
                for flow in &flows {
                    debug!(%flow, "UDP flow forgotten: not an endpoint of the service any more");
                }
                if !flows.is_empty() {
                    info!(
                        flows = flows.len(),
                        "UDP flows of services forgotten: their endpoints went away"
                    );
                }
                self.agreed = wanted;
                flows.len()
            }
            Err(error) => {
                warn!(
                    "cannot forget UDP flows to former endpoints ({error}): clients that keep sending stay with them; does the kernel have nf_conntrack_netlink?"
                );
                0
            }
        }
    }
}

/// The UDP part.
fn targets(services: &[Service], elsewhere: &BTreeSet<SocketAddr>) -> Targets {
    let untranslated = elsewhere.iter().map(|vip| (*vip, BTreeSet::from([*vip])));
    let here = services
        .iter()
        .filter(|service| service.protocol == Protocol::Udp)
        .map(|service| (service.vip, service.endpoints.clone()));
    untranslated.chain(here).collect()
}

/// Addresses that were a service's and are none any more are not to be translated, either.
fn with_former(former: &Targets, wanted: &Targets) -> Targets {
    let mut all: Targets = former
        .keys()
        .map(|vip| (*vip, BTreeSet::from([*vip])))
        .collect();
    all.extend(wanted.clone());
    all
}

fn stale(targets: &Targets, flow: &Flow) -> bool {
    targets
        .get(&flow.destination)
        .is_some_and(|targets| !targets.contains(&flow.endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::endpoint("10.96.0.1:53", "198.18.0.2:53", false)]
    #[case::no_endpoint_any_more("10.96.0.1:53", "198.18.0.9:53", true)]
    #[case::another_port("10.96.0.1:53", "198.18.0.2:54", true)]
    #[case::went_to_ovn_before_it_was_served_here("10.96.0.1:53", "10.96.0.1:53", true)]
    #[case::ovn_serves_it("10.96.0.2:53", "10.96.0.2:53", false)]
    #[case::ovn_serves_it_now("10.96.0.2:53", "198.18.0.2:53", true)]
    #[case::deleted_service("10.96.0.3:53", "198.18.0.2:53", true)]
    #[case::deleted_service_untranslated("10.96.0.3:53", "10.96.0.3:53", false)]
    #[case::tcp_service("10.96.0.4:53", "198.18.0.9:53", false)]
    #[case::other_port_of_the_address("10.96.0.1:54", "198.18.0.9:53", false)]
    #[case::no_service("198.18.0.2:53", "198.18.0.2:53", false)]
    fn flows_that_lead_astray(
        #[case] destination: &str,
        #[case] endpoint: &str,
        #[case] expected: bool,
    ) {
        let former = targets(
            &[Service::of(
                Protocol::Udp,
                "10.96.0.3:53",
                &["198.18.0.2:53"],
            )],
            &BTreeSet::new(),
        );
        let services = [
            Service::of(Protocol::Udp, "10.96.0.1:53", &["198.18.0.2:53"]),
            Service::of(Protocol::Tcp, "10.96.0.4:53", &["198.18.0.2:53"]),
        ];
        let wanted = targets(&services, &["10.96.0.2:53".parse().unwrap()].into());
        let flow = Flow {
            destination: destination.parse().unwrap(),
            endpoint: endpoint.parse().unwrap(),
        };
        assert_eq!(stale(&with_former(&former, &wanted), &flow), expected);
    }
}
