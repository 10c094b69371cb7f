//! What the DPU says that an interface is to look like. Pure.

use std::net::IpAddr;

use api::{Mac, Route};
use channel::proto;
use cni_bin::code;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::attachment::AttachmentId;
use crate::error::Error;
use crate::wiring::Wiring;

/// The DPU's wiring, read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) logical_port: String,
    #[serde(with = "mac_text")]
    pub(crate) mac: Mac,
    /// Bytes.
    pub(crate) mtu: u32,
    pub(crate) ips: Vec<IpNet>,
    pub(crate) gateways: Vec<IpAddr>,
    /// (destination, next hop)
    pub(crate) routes: Vec<(IpNet, IpAddr)>,
    /// Of the host's own interface.
    #[serde(default)]
    pub(crate) cluster: Option<Cluster>,
}

/// What the host's own interface leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    pub(crate) pods: Vec<IpNet>,
    pub(crate) services: Vec<IpNet>,
    pub(crate) join: Vec<IpNet>,
}

impl Told {
    /// Reads what the DPU says; `most`: an upper bound of the MTU in bytes.
    ///
    /// # Errors
    /// It says what no interface can look like.
    pub(crate) fn read(wiring: &proto::Wiring, most: Option<u32>) -> Result<Self, Error> {
        let port = &wiring.logical_port;
        let unreadable = |what: &str, text: &str| {
            Error::new(
                code::TRY_AGAIN_LATER,
                format!("The DPU says of port {port} that its {what} is {text:?}."),
                "See that cni-node is of one release, or of neighbouring ones, on this host and on its DPU.",
            )
        };
        let nets = |what: &str, texts: &[String]| -> Result<Vec<IpNet>, Error> {
            let read = |text: &String| text.parse().map_err(|_| unreadable(what, text));
            texts.iter().map(read).collect()
        };
        let address = |what: &str, text: &String| -> Result<IpAddr, Error> {
            text.parse().map_err(|_| unreadable(what, text))
        };
        let route = |route: &proto::Route| -> Result<(IpNet, IpAddr), Error> {
            let dst = route.destination.parse();
            Ok((
                dst.map_err(|_| unreadable("route's destination", &route.destination))?,
                address("route's next hop", &route.via)?,
            ))
        };
        let cluster = |cluster: &proto::Cluster| -> Result<Cluster, Error> {
            Ok(Cluster {
                pods: nets("pods' CIDR", &cluster.pods)?,
                services: nets("Services' CIDR", &cluster.services)?,
                join: nets("join CIDR", &cluster.join)?,
            })
        };
        if !(576..=65_535).contains(&wiring.mtu) {
            return Err(unreadable("MTU", &wiring.mtu.to_string()));
        }
        Ok(Self {
            logical_port: port.clone(),
            mac: wiring
                .mac
                .parse()
                .map_err(|_| unreadable("MAC address", &wiring.mac))?,
            mtu: most.map_or(wiring.mtu, |most| most.min(wiring.mtu)),
            ips: nets("address", &wiring.ips)?,
            gateways: wiring
                .gateways
                .iter()
                .map(|text| address("gateway", text))
                .collect::<Result<_, _>>()?,
            routes: wiring.routes.iter().map(route).collect::<Result<_, _>>()?,
            cluster: wiring.cluster.as_ref().map(cluster).transpose()?,
        })
    }

    /// The interface in a pod.
    pub(crate) fn wiring(&self, id: &AttachmentId) -> Wiring {
        Wiring {
            id: id.clone(),
            iface_id: self.logical_port.clone(),
            mac: self.mac,
            mtu: self.mtu,
            ips: self.ips.clone(),
            gateways: self.gateways.clone(),
            routes: self
                .routes
                .iter()
                .map(|(dst, via)| Route {
                    dst: *dst,
                    via: *via,
                })
                .collect(),
        }
    }
}

mod mac_text {
    use api::Mac;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(mac: &Mac, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(mac)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Mac, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wiring() -> proto::Wiring {
        proto::Wiring {
            logical_port: "default/web/default".to_owned(),
            subnet: "default".to_owned(),
            mac: "0a:58:0a:f4:00:05".to_owned(),
            mtu: 1442,
            ips: vec!["10.244.0.5/24".to_owned(), "fd00::5/64".to_owned()],
            gateways: vec!["10.244.0.1".to_owned()],
            routes: vec![proto::Route {
                destination: "0.0.0.0/0".to_owned(),
                via: "10.244.0.1".to_owned(),
            }],
            cluster: None,
        }
    }

    #[test]
    fn it_survives_the_journal_and_the_smaller_mtu_counts() {
        let told = Told::read(&wiring(), Some(1400)).unwrap();
        assert_eq!((told.mtu, told.ips.len(), told.routes.len()), (1400, 2, 1));
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), told);
        assert_eq!(Told::read(&wiring(), Some(9000)).unwrap().mtu, 1442);
    }

    #[test]
    fn what_cannot_be_is_named() {
        type Spoil = fn(&mut proto::Wiring);
        let cases: [(Spoil, &str); 5] = [
            (|w| w.mac = "x".to_owned(), "MAC address is \"x\""),
            (|w| w.mtu = 0, "MTU is \"0\""),
            (|w| w.ips = vec!["10.0.0.1".to_owned()], "address is"),
            (|w| w.gateways = vec!["gw".to_owned()], "gateway is \"gw\""),
            (|w| w.routes[0].via = String::new(), "next hop is \"\""),
        ];
        for (spoil, sentence) in cases {
            let mut wiring = wiring();
            spoil(&mut wiring);
            let error = Told::read(&wiring, None).unwrap_err();
            assert!(error.cause.contains(sentence), "{error}");
        }
    }
}
