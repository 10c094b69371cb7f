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

    /// The pod that a machine has gone to from the pod `from`, where it has.
    pub fn arrived(&self, ns: &str, from: (&str, &PodEntry)) -> Option<(&str, &PodEntry)> {
        self.after(ns, from, MigrationStage::Succeeded).next()
    }

    /// The pod that a machine is going to from the pod `from`, if it is.
    ///
    /// # Errors
    /// It cannot go there.
    pub fn coming(
        &self,
        ns: &str,
        from: (&str, &PodEntry),
    ) -> Result<Option<(&str, &PodEntry)>, Problem> {
        let mut targets = self.after(ns, from, MigrationStage::UnderWay);
        let Some(target) = targets.next() else {
            return Ok(None);
        };
        if let Some((other, _)) = targets.next() {
            let sentence = format!(
                "pods {ns}/{} and {ns}/{other} both say that a machine is to migrate to them: none of them gets its ports; delete the one that KubeVirt has not made",
                target.0
            );
            return Err(Problem::new("MigrationRefused", sentence));
        }
        let has_card = |pod: &PodEntry| {
            self.place(&pod.node)
                .is_some_and(|place| place.host.is_some())
        };
        if let Some(node) = [from.1, target.1].into_iter().find(|pod| has_card(pod)) {
            let sentence = format!(
                "pod {ns}/{}: its machine cannot migrate while it runs: node {} is behind a DPU, where an interface is a function of that card; stop and start the machine",
                target.0, node.node
            );
            return Err(Problem::new("MigrationRefused", sentence));
        }
        Ok(Some(target))
    }

    /// The machine's other pods that are targets at this stage. A pod that is older than `from` is where it came from.
    fn after<'a>(
        &'a self,
        ns: &str,
        (name, from): (&str, &PodEntry),
        stage: MigrationStage,
    ) -> impl Iterator<Item = (&'a str, &'a PodEntry)> + use<'a> {
        let (ns, name, created) = (ns.to_owned(), name.to_owned(), from.created);
        let pods = self.pods_of(&ns, from.vm.as_deref().unwrap_or_default());
        pods.filter(move |(other, pod)| *other != name && pod.created >= created)
            .filter(move |(_, pod)| self.stage(&ns, pod) == Some(stage))
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
