//! Virtual machines as the index keeps them: the pods of each, and where it migrates to.
//!
//! A pod is a migration's target if it says so (KubeVirt's label) *and* there is that migration, of that machine: whoever may only
//! create pods must not be given a machine's port beside it.

use super::{Index, ObjectKey, PodEntry};
use crate::rows::Problem;
use api::{MigrationStage, VirtualMachineInstanceMigration};

/// A migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MigrationEntry {
    /// Its UID: what its target's label names.
    pub uid: Box<str>,
    /// Name of the machine.
    pub vm: Box<str>,
    /// How far it is.
    pub stage: MigrationStage,
}

impl From<&VirtualMachineInstanceMigration> for MigrationEntry {
    fn from(migration: &VirtualMachineInstanceMigration) -> Self {
        Self {
            uid: migration.metadata.uid.as_deref().unwrap_or_default().into(),
            vm: migration.spec.vmi_name.as_str().into(),
            stage: migration.stage(),
        }
    }
}

impl Index {
    /// The pods of a machine, by name.
    pub fn pods_of<'a>(
        &'a self,
        ns: &str,
        vm: &str,
    ) -> impl Iterator<Item = (&'a str, &'a PodEntry)> + use<'a> {
        let machine = (ns.to_owned(), vm.to_owned());
        let names = self.machines.get(&machine).into_iter().flatten();
        names.filter_map(move |name| {
            let pod = self.pods.get(&(machine.0.clone(), name.clone()))?;
            Some((name.as_str(), pod))
        })
    }

    /// How far the migration is whose target the pod is.
    pub fn stage(&self, ns: &str, pod: &PodEntry) -> Option<MigrationStage> {
        let (uid, vm) = (pod.migration.as_deref()?, pod.vm.as_deref()?);
        let migrations = self.migrations.range((ns.to_owned(), String::new())..);
        migrations
            .take_while(|((namespace, _), _)| namespace == ns)
            .find(|(_, migration)| *migration.uid == *uid && *migration.vm == *vm)
            .map(|(_, migration)| migration.stage)
    }

    /// The pod that a machine is going to from the pod `from`, if it is; `named`: the one that its ports name already.
    ///
    /// # Errors
    /// It cannot go there.
    pub fn coming(
        &self,
        ns: &str,
        from: (&str, &PodEntry),
        named: Option<&str>,
    ) -> Result<Option<(&str, &PodEntry)>, Problem> {
        let targets: Vec<(&str, &PodEntry)> = self.targets(ns, from).collect();
        let known = targets.iter().find(|(name, _)| Some(*name) == named);
        let target = match (known, targets.as_slice()) {
            (Some(known), _) => *known,
            (None, []) => return Ok(None),
            (None, [one]) => *one,
            (None, [(one, _), (other, _), ..]) => {
                let sentence = format!(
                    "pods {ns}/{one} and {ns}/{other} both say that a machine is to migrate to them: none of them gets its ports; delete the one that KubeVirt has not made"
                );
                return Err(Problem::new("MigrationRefused", sentence));
            }
        };
        let cannot = |why: String| {
            let pod = target.0;
            let sentence = format!(
                "pod {ns}/{pod}: its machine cannot migrate to it: {why}; stop and start the machine"
            );
            Err(Problem::new("MigrationRefused", sentence))
        };
        let places = [from.1, target.1].map(|pod| self.place(&pod.node));
        if let [Some(here), Some(there)] = &places
            && here.chassis == there.chassis
        {
            return cannot(format!("it is on node {}, where it runs", target.1.node));
        }
        for (pod, place) in [from.1, target.1].into_iter().zip(&places) {
            if place.as_ref().is_some_and(|place| place.host.is_some()) {
                return cannot(format!(
                    "node {} is behind a DPU, where an interface is a function of that card",
                    pod.node
                ));
            }
        }
        Ok(Some(target))
    }

    /// The machine's other pods to which a migration is under way. A pod that is older than `from` is where it came from.
    fn targets<'a>(
        &'a self,
        ns: &str,
        (name, from): (&str, &PodEntry),
    ) -> impl Iterator<Item = (&'a str, &'a PodEntry)> + use<'a> {
        let (ns, name, created) = (ns.to_owned(), name.to_owned(), from.created);
        let pods = self.pods_of(&ns, from.vm.as_deref().unwrap_or_default());
        pods.filter(move |(other, pod)| *other != name && pod.created >= created)
            .filter(move |(_, pod)| self.stage(&ns, pod) == Some(MigrationStage::UnderWay))
    }

    /// The names of the other pods of a pod's machine.
    pub(super) fn beside(&self, (ns, name): &ObjectKey, pod: Option<&PodEntry>) -> Vec<ObjectKey> {
        let Some(vm) = pod.and_then(|pod| pod.vm.as_deref()) else {
            return Vec::new();
        };
        let others = self.pods_of(ns, vm).filter(|(other, _)| other != name);
        others
            .map(|(other, _)| (ns.clone(), other.to_owned()))
            .collect()
    }
}
