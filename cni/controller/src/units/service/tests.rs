//! Which endpoints end up behind a virtual address.

use super::*;
use crate::index::Settings;
use crate::rows::Cell;

fn endpoint(address: &str, conditions: &str) -> EndpointEntry {
    EndpointEntry {
        address: address.parse().unwrap(),
        ready: conditions.contains("ready"),
        serving: conditions.contains("serving"),
        terminating: conditions.contains("terminating"),
    }
}

fn slice(port: (&str, Protocol, u16), endpoints: &[(&str, &str)]) -> SliceEntry {
    let endpoints: Vec<EndpointEntry> = endpoints
        .iter()
        .map(|(address, conditions)| endpoint(address, conditions))
        .collect();
    SliceEntry {
        ipv6: endpoints
            .first()
            .is_some_and(|endpoint| endpoint.address.is_ipv6()),
        ports: vec![(port.0.to_owned(), port.1, port.2)],
        endpoints,
    }
}

fn port(name: &str, protocol: Protocol, port: u16) -> ServicePortEntry {
    ServicePortEntry {
        name: name.to_owned(),
        protocol,
        port,
    }
}

fn service() -> ServiceEntry {
    ServiceEntry {
        uid: "u".to_owned(),
        cluster_ips: vec!["10.96.0.10".parse().unwrap()],
        ports: vec![port("http", Protocol::Tcp, 80)],
        affinity: None,
        publish_not_ready: false,
        internal_local: false,
        external_local: false,
    }
}

fn rows(service: ServiceEntry, slices: Vec<SliceEntry>) -> Vec<DesiredRow> {
    let mut index = Index::new(Settings::default());
    let key = ("ns".to_owned(), "web".to_owned());
    index.services.insert(key.clone(), service);
    let slices = slices
        .into_iter()
        .enumerate()
        .map(|(n, slice)| (n.to_string(), slice));
    index.slices.insert(key, slices.collect());
    desired(&index, "ns", "web").unwrap()
}

fn map(row: &DesiredRow, column: &str) -> Vec<(String, String)> {
    let Some(Cell::Datum(datum)) = row.columns.get(column) else {
        panic!("no {column}")
    };
    let text = |atom: &ovsdb::Atom| atom.as_str().unwrap().to_owned();
    datum
        .pairs()
        .map(|(key, value)| (text(key), text(value)))
        .collect()
}

/// The backends of the only virtual address.
fn backends_of(service: ServiceEntry, slices: Vec<SliceEntry>) -> String {
    let rows = rows(service, slices);
    let [row] = rows.as_slice() else {
        panic!("{} rows", rows.len())
    };
    let vips = map(row, "vips");
    let [(_, backends)] = vips.as_slice() else {
        panic!("{vips:?}")
    };
    backends.clone()
}

const HTTP: (&str, Protocol, u16) = ("http", Protocol::Tcp, 8080);

#[test]
fn ready_endpoints_of_all_slices_count_once_each_and_sorted() {
    let slices = vec![
        slice(
            HTTP,
            &[
                ("10.244.0.7", "ready serving"),
                ("10.244.0.5", "ready serving"),
            ],
        ),
        slice(HTTP, &[("10.244.0.5", "ready serving"), ("10.244.0.6", "")]),
    ];
    assert_eq!(
        backends_of(service(), slices),
        "10.244.0.5:8080,10.244.0.7:8080"
    );
}

#[test]
fn terminating_endpoints_serve_when_none_is_ready() {
    let ending = ("10.244.0.5", "serving terminating");
    let slices = vec![slice(
        HTTP,
        &[
            ending,
            ("10.244.0.6", "terminating"),
            ("10.244.0.7", "serving"),
        ],
    )];
    assert_eq!(backends_of(service(), slices), "10.244.0.5:8080");
    let slices = vec![slice(HTTP, &[ending, ("10.244.0.6", "ready serving")])];
    assert_eq!(backends_of(service(), slices), "10.244.0.6:8080");
}

#[test]
fn unready_endpoints_count_where_the_service_says_so() {
    let mut eager = service();
    eager.publish_not_ready = true;
    assert_eq!(
        backends_of(eager, vec![slice(HTTP, &[("10.244.0.5", "")])]),
        "10.244.0.5:8080"
    );
    assert_eq!(
        backends_of(service(), vec![slice(HTTP, &[("10.244.0.5", "")])]),
        ""
    );
}

#[test]
fn a_virtual_address_without_endpoints_stays_and_refuses() {
    let rows = rows(service(), vec![]);
    assert_eq!(
        map(&rows[0], "vips"),
        [("10.96.0.10:80".to_owned(), String::new())]
    );
    assert!(map(&rows[0], "options").contains(&("reject".to_owned(), "true".to_owned())));
}

#[test]
fn ports_are_matched_by_name_and_protocol() {
    let slices = vec![
        slice(
            ("metrics", Protocol::Tcp, 9000),
            &[("10.244.0.5", "ready serving")],
        ),
        slice(
            ("http", Protocol::Udp, 9001),
            &[("10.244.0.6", "ready serving")],
        ),
        // The same name leads to another number in another pod: a named targetPort.
        slice(
            ("http", Protocol::Tcp, 8081),
            &[("10.244.0.7", "ready serving")],
        ),
        slice(HTTP, &[("10.244.0.8", "ready serving")]),
    ];
    assert_eq!(
        backends_of(service(), slices),
        "10.244.0.7:8081,10.244.0.8:8080"
    );
}

#[test]
fn each_family_has_its_own_endpoints() {
    let mut dual = service();
    dual.cluster_ips.push("fd00:10:96::a".parse().unwrap());
    let slices = vec![
        slice(HTTP, &[("10.244.0.5", "ready serving")]),
        slice(HTTP, &[("fd00:10:244::5", "ready serving")]),
    ];
    let rows = rows(dual, slices);
    let expected = [
        ("10.96.0.10:80", "10.244.0.5:8080"),
        ("[fd00:10:96::a]:80", "[fd00:10:244::5]:8080"),
    ];
    let expected = expected.map(|(vip, backend)| (vip.to_owned(), backend.to_owned()));
    assert_eq!(map(&rows[0], "vips"), expected);
    let hairpin = (
        "hairpin_snat_ip".to_owned(),
        "10.96.0.10 fd00:10:96::a".to_owned(),
    );
    assert!(map(&rows[0], "options").contains(&hairpin));
}

#[test]
fn every_protocol_is_a_load_balancer_in_the_group() {
    let mut many = service();
    many.ports = vec![
        port("a", Protocol::Tcp, 53),
        port("b", Protocol::Udp, 53),
        port("c", Protocol::Sctp, 53),
    ];
    let rows = rows(many, vec![]);
    let ids: Vec<&str> = rows.iter().map(|row| row.id.id.as_str()).collect();
    assert_eq!(ids, ["ns/web/tcp", "ns/web/udp", "ns/web/sctp"]);
    for row in &rows {
        assert_eq!(
            row.parents[0].row,
            RowId::new("Load_Balancer_Group", "vpc/default")
        );
    }
}

#[test]
fn affinity_fits_into_openflow() {
    for (asked, given) in [(10_800, "10800"), (86_400, "65535"), (0, "1")] {
        let mut sticky = service();
        sticky.affinity = Some(asked);
        let options = map(&rows(sticky, vec![])[0], "options");
        assert!(
            options.contains(&("affinity_timeout".to_owned(), given.to_owned())),
            "{asked}"
        );
    }
    assert_eq!(map(&rows(service(), vec![])[0], "options").len(), 2);
}
