//! What the engine says of its units: Events, states, metrics.

use super::Engine;
use crate::index::Index;
use crate::metrics::Addresses;
use crate::report::{Notice, SubnetState, VpcState};
use crate::rows::{Problem, Unit};
use api::Usage;
use std::collections::BTreeSet;
use tokio::time::Instant;

/// The reason that passes by itself, when another unit has its rows.
pub(super) const WAITING: &str = "Waiting";

/// It waits for a row, or for a unit.
pub(super) fn waits_for(what: &impl std::fmt::Display) -> Problem {
    let sentence = format!("it waits for {what} in the northbound database; it follows by itself");
    Problem::new(WAITING, sentence)
}

impl Engine {
    /// Says what is wrong with a unit, if that is new.
    pub(crate) fn report_problems(&mut self, unit: &Unit, problems: Vec<Problem>) {
        let before = self
            .blocked
            .get(unit)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let changed = before != problems.as_slice();
        if changed {
            let uid = self.shared.read(|index| uid(index, unit));
            for problem in problems.iter().filter(|problem| !before.contains(problem)) {
                if problem.reason == WAITING {
                    tracing::debug!(%unit, "{}", problem.sentence);
                    continue;
                }
                self.reports.notice(Notice {
                    about: unit.clone().into(),
                    uid: uid.clone().unwrap_or_default(),
                    problem: problem.clone(),
                });
            }
        }
        if problems.is_empty() {
            self.blocked.remove(unit);
        } else {
            self.blocked.insert(unit.clone(), problems);
        }
        if changed {
            // Who waited for this unit, and whoever looks at its state.
            if let Unit::Subnet(name) = unit {
                self.report_states(&[name.clone()].into());
            }
        }
        self.metrics
            .blocked
            .set(i64::try_from(self.blocked.len()).unwrap_or(i64::MAX));
    }

    /// Puts up the states of these subnets and their VPCs.
    pub(super) fn report_states(&self, subnets: &BTreeSet<String>) {
        let mut vpcs = BTreeSet::new();
        for name in subnets {
            let entry = self.shared.read(|index| {
                let subnet = index.subnets.get(name)?;
                Some((subnet.spec.vpc.clone(), subnet.generation))
            });
            let Some((vpc, generation)) = entry else {
                for family in ["ipv4", "ipv6"] {
                    let labels = Addresses {
                        subnet: name.clone(),
                        family,
                    };
                    self.metrics.addresses_used.remove(&labels);
                    self.metrics.addresses_available.remove(&labels);
                }
                continue;
            };
            vpcs.insert(vpc);
            let pool = self.ports.pool(name);
            let usage = |v6: bool| pool.and_then(|pool| pool.usage(v6)).map(to_usage);
            for (v6, family) in [(false, "ipv4"), (true, "ipv6")] {
                if let Some(usage) = usage(v6) {
                    let labels = Addresses {
                        subnet: name.clone(),
                        family,
                    };
                    self.metrics
                        .addresses_used
                        .get_or_create(&labels)
                        .set(usage.used);
                    let available = &self.metrics.addresses_available;
                    available.get_or_create(&labels).set(usage.available);
                }
            }
            let state = SubnetState {
                v4: usage(false),
                v6: usage(true),
                ready: self.subnet_ready(name),
                ports: pool.map_or(0, |pool| {
                    let used = [false, true].map(|v6| pool.usage(v6).map_or(0, |(used, _)| used));
                    usize::try_from(used[0].max(used[1])).unwrap_or(usize::MAX)
                }),
                generation,
            };
            self.reports.board.put(|states| {
                states.subnets.insert(name.clone(), state);
            });
        }
        for vpc in vpcs {
            self.report_vpc(&vpc);
        }
    }

    pub(super) fn report_vpc(&self, name: &str) {
        let entry = self
            .shared
            .read(|index| Some(index.vpcs.get(name)?.generation));
        let Some(generation) = entry else {
            return;
        };
        let problem = self
            .blocked
            .get(&Unit::Vpc(name.to_owned()))
            .and_then(|p| p.first());
        let state = VpcState {
            subnets: self.shared.read(|index| {
                index
                    .subnets_of(name)
                    .map(|(name, _)| name.to_owned())
                    .collect()
            }),
            ready: problem.map_or(Ok(()), |problem| Err(problem.clone())),
            generation,
        };
        self.reports.board.put(|states| {
            states.vpcs.insert(name.to_owned(), state);
        });
    }

    fn subnet_ready(&self, name: &str) -> Result<(), Problem> {
        if let Some(why) = self.ports.frozen(name) {
            return Err(Problem::new("AllocationRefused", why));
        }
        let problems = self.blocked.get(&Unit::Subnet(name.to_owned()));
        if let Some(problem) = problems.and_then(|problems| problems.first()) {
            return Err(problem.clone());
        }
        let pool = self.ports.pool(name);
        for (v6, family) in [(false, "IPv4"), (true, "IPv6")] {
            if let Some((used, 0)) = pool.and_then(|pool| pool.usage(v6)) {
                let sentence = format!(
                    "Subnet {name}: all its {family} addresses are taken, {used} of them by ports: delete pods, take addresses off spec.excludes, or use a larger Subnet"
                );
                return Err(Problem::new("NoAddressLeft", sentence));
            }
        }
        Ok(())
    }

    /// A pod's ports are in the database.
    pub(super) fn observe_creation(&self, unit: &Unit, seen: Instant) {
        let since_seen = seen.elapsed().as_secs_f64();
        self.metrics.pod_first_seen_lsp_created.observe(since_seen);
        let Unit::Pod { ns, name } = unit else {
            return;
        };
        let key = (ns.clone(), name.clone());
        let created = self
            .shared
            .read(|index| index.pods.get(&key).map(|pod| pod.created));
        if let Some(created) = created {
            let now = jiff::Timestamp::now().as_second();
            self.metrics
                .pod_creation_latency
                .observe((now - created).max(0) as f64);
        }
    }
}

fn to_usage((used, available): (u128, u128)) -> Usage {
    let number = |n: u128| i64::try_from(n).unwrap_or(i64::MAX);
    Usage {
        used: number(used),
        available: number(available),
    }
}

/// The UID of a unit's object.
fn uid(index: &Index, unit: &Unit) -> Option<String> {
    match unit {
        Unit::Vpc(name) => index.vpcs.get(name).map(|vpc| vpc.uid.clone()),
        Unit::Subnet(name) => index.subnets.get(name).map(|subnet| subnet.uid.clone()),
        Unit::Node(name) => index.nodes.get(name).map(|node| node.uid.clone()),
        Unit::Service { ns, name } => index
            .services
            .get(&(ns.clone(), name.clone()))
            .map(|service| service.uid.clone()),
        Unit::Pod { ns, name } => index
            .pods
            .get(&(ns.clone(), name.clone()))
            .map(|pod| pod.object_uid().to_owned()),
    }
}
