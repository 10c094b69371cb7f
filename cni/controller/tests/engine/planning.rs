//! A plan that is made right after its transaction has been carried out is empty, and the database
//! then has what was wanted: for any sequence of wishes.

use crate::server::Server;
use cni_controller::nb;
use cni_controller::observed::Observed;
use cni_controller::plan::plan;
use cni_controller::rows::{DesiredRow, RowId, Unit};
use ovsdb::{Client, Datum, Replica};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What one step wants: of each unit, nothing or some form of it.
#[derive(Clone, Debug)]
struct Step {
    router: Option<u8>,
    switches: [Option<u8>; 2],
    /// Pod → switch and form.
    pods: BTreeMap<u8, (u8, u8)>,
    /// Service → form.
    services: BTreeMap<u8, u8>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let switch = prop::option::weighted(0.8, 0u8..3);
    let pods = prop::collection::btree_map(0u8..6, (0u8..2, 0u8..3), 0..6);
    let services = prop::collection::btree_map(0u8..3, 0u8..3, 0..3);
    let router = prop::option::weighted(0.9, 0u8..3);
    let step = (router, [switch.clone(), switch], pods, services);
    let step = step.prop_map(|(router, switches, pods, services)| Step {
        router,
        switches,
        pods,
        services,
    });
    prop::collection::vec(step, 1..6)
}

fn pairs(form: u8) -> Datum {
    Datum::map((0..form).map(|n| (format!("key{n}"), format!("value{form}"))))
}

impl Step {
    fn desired(&self) -> Vec<(Unit, Vec<DesiredRow>)> {
        let mut all = vec![(Unit::Vpc("v".into()), self.router_rows())];
        for (n, form) in self.switches.iter().enumerate() {
            all.push((
                Unit::Subnet(format!("s{n}")),
                switch_rows(n, *form, self.router.is_some()),
            ));
        }
        for n in 0..3 {
            let rows = self.services.get(&n).map(|form| service_row(n, *form));
            all.push((
                Unit::service("ns", format!("svc{n}")),
                rows.into_iter().collect(),
            ));
        }
        for n in 0..6 {
            let row = self
                .pods
                .get(&n)
                .map(|(switch, form)| pod_row(n, *switch, *form));
            all.push((Unit::pod("ns", format!("p{n}")), row.into_iter().collect()));
        }
        all
    }

    fn router_rows(&self) -> Vec<DesiredRow> {
        let Some(form) = self.router else {
            return Vec::new();
        };
        let router = DesiredRow::new("Logical_Router", "v")
            .set("name", "v")
            .keys("options", [("chosen", form.to_string())]);
        let group = DesiredRow::new("Load_Balancer_Group", "vpc/v").set("name", "vpc/v");
        let policies = (0..form).map(|n| {
            DesiredRow::new("Logical_Router_Policy", format!("v/{n}"))
                .set("priority", i64::from(n) + 1)
                .set("match", "ip4")
                .set("action", "allow")
                .parent(RowId::new("Logical_Router", "v"), "policies")
        });
        [router, group].into_iter().chain(policies).collect()
    }
}

fn switch_rows(n: usize, form: Option<u8>, router: bool) -> Vec<DesiredRow> {
    let Some(form) = form else { return Vec::new() };
    let group = (router && form > 0).then(|| RowId::new("Load_Balancer_Group", "vpc/v"));
    let switch = DesiredRow::new("Logical_Switch", format!("s{n}"))
        .set("name", format!("s{n}"))
        .refs("load_balancer_group", group)
        .set("other_config", pairs(form));
    let port = DesiredRow::new("Logical_Switch_Port", format!("s{n}/router"))
        .set("name", format!("s{n}/router"))
        .parent(RowId::new("Logical_Switch", format!("s{n}")), "ports");
    if form == 2 {
        vec![switch]
    } else {
        vec![switch, port]
    }
}

fn pod_row(n: u8, switch: u8, form: u8) -> DesiredRow {
    DesiredRow::new("Logical_Switch_Port", format!("ns/p{n}"))
        .set("name", format!("ns/p{n}"))
        .set("addresses", format!("0a:58:00:00:00:0{n} 10.0.0.{form}"))
        .set("options", pairs(form))
        .set("external_ids", pairs(2 - form))
        .parent(RowId::new("Logical_Switch", format!("s{switch}")), "ports")
}

fn service_row(n: u8, form: u8) -> DesiredRow {
    DesiredRow::new("Load_Balancer", format!("svc{n}"))
        .set("name", format!("svc{n}"))
        .set(
            "vips",
            Datum::map([(format!("10.96.0.{n}:80"), format!("10.0.0.{form}:80"))]),
        )
        .set("protocol", "tcp")
        .keys("external_ids", [("form", form.to_string())])
        .parent(RowId::new("Load_Balancer_Group", "vpc/v"), "load_balancer")
}

struct Database {
    client: Client,
    replica: Replica,
    changes: tokio::sync::mpsc::UnboundedReceiver<ovsdb::Change>,
    observed: Observed,
}

impl Database {
    async fn apply(&mut self, desired: &[(Unit, Vec<DesiredRow>)]) -> bool {
        let transaction = plan(&self.observed, desired).transaction;
        if transaction.is_empty() {
            return false;
        }
        let end = Instant::now() + Duration::from_secs(5);
        self.client.transact(transaction, end).await.unwrap();
        self.observed.drain(&self.replica, &mut self.changes);
        true
    }
}

/// What is wanted and does not hang on what is not wanted.
fn possible(desired: Vec<(Unit, Vec<DesiredRow>)>) -> Vec<(Unit, Vec<DesiredRow>)> {
    let plan = plan(&Observed::default(), &desired);
    let blocked: Vec<Unit> = plan.blocked.into_iter().map(|(unit, _)| unit).collect();
    let keep = |(unit, rows): (Unit, Vec<DesiredRow>)| {
        let rows = if blocked.contains(&unit) {
            Vec::new()
        } else {
            rows
        };
        (unit, rows)
    };
    desired.into_iter().map(keep).collect()
}

#[test]
fn a_plan_after_its_transaction_is_empty() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = Server::northbound();
    let mut database = runtime.block_on(async {
        let client = server.client("OVN_Northbound");
        let replica = client.monitor(nb::monitor_spec());
        replica
            .wait_synced(Instant::now() + Duration::from_secs(10))
            .await
            .unwrap();
        let mut changes = replica.subscribe();
        let mut observed = Observed::default();
        observed.drain(&replica, &mut changes);
        Database {
            client,
            replica,
            changes,
            observed,
        }
    });
    let database = std::cell::RefCell::new(&mut database);
    let config = Config {
        cases: 60,
        failure_persistence: None,
        ..Config::default()
    };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            let database = &mut **database.borrow_mut();
            for step in steps {
                let desired = possible(step.desired());
                runtime.block_on(database.apply(&desired));
                prop_assert!(!runtime.block_on(database.apply(&desired)), "a second plan");
                let wanted: usize = desired.iter().map(|(_, rows)| rows.len()).sum();
                prop_assert_eq!(database.observed.len(), wanted);
                for row in desired.iter().flat_map(|(_, rows)| rows) {
                    prop_assert!(database.observed.find(&row.id).is_some(), "{}", row.id);
                    for parent in &row.parents {
                        let child = database.observed.find(&row.id).unwrap().uuid();
                        let table = parent.row.table;
                        let holders = database.observed.referring(table, parent.column, child);
                        prop_assert_eq!(holders.len(), 1, "{}", row.id);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}
