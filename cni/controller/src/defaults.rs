//! The objects that every cluster has: Vpc `default`, Subnets `default` and `join`. Made at start
//! if they are not there; after that they are the operator's.

use crate::index::Settings;
use api::names::{DEFAULT_SUBNET, DEFAULT_VPC, JOIN_SUBNET};
use api::{Subnet, SubnetSpec, Vpc, VpcSpec};
use ipnet::IpNet;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

const RETRY: Duration = Duration::from_secs(2);

/// The Subnets as the command line has them: `default` and `join`.
pub(crate) fn subnets(settings: &Settings) -> [Subnet; 2] {
    let spec = |cidrs: &[IpNet]| SubnetSpec::new(cidrs.iter().copied());
    let pods = SubnetSpec {
        nat_outgoing: true,
        ..spec(&settings.pod_cidrs)
    };
    [
        Subnet::new(DEFAULT_SUBNET, pods),
        Subnet::new(JOIN_SUBNET, spec(&settings.join_cidrs)),
    ]
}

/// Makes what is not there. Returns when all is there. Side by side: at most starts there is
/// nothing to make, and each look is a round trip before this process may write.
pub(crate) async fn create(client: Client, settings: Settings) {
    let vpc = Vpc::new(DEFAULT_VPC, VpcSpec::default());
    let [pods, join] = subnets(&settings);
    let vpcs: Api<Vpc> = Api::all(client.clone());
    let api: Api<Subnet> = Api::all(client);
    tokio::join!(
        make(&vpcs, &vpc, DEFAULT_VPC),
        make(&api, &pods, DEFAULT_SUBNET),
        make(&api, &join, JOIN_SUBNET),
    );
}

async fn make<K>(api: &Api<K>, object: &K, name: &str)
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let kind = K::kind(&());
    loop {
        let made = match api.get_opt(name).await {
            Ok(Some(_)) => return,
            Ok(None) => api.create(&PostParams::default(), object).await,
            Err(error) => Err(error),
        };
        match made {
            Ok(_) => return tracing::info!("made {kind} {name}"),
            Err(kube::Error::Api(status)) if status.code == 409 => return,
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(
                    "{kind} {name} could not be made: {error:#}; tried again (are the CRDs installed?)"
                );
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
