//! Whether the program can do its work, as a set of named checks that each say in a sentence why not.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

type Checks = BTreeMap<&'static str, Option<String>>;

/// All checks of a program; a cheap handle. Ready while no check has a complaint.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<watch::Sender<Checks>>);

impl Readiness {
    /// Adds the check `name`, not ready because of `why_not` until its owner says otherwise. Names are unique: a second
    /// check of the same name shares the first one's state.
    #[must_use]
    pub fn check(&self, name: &'static str, why_not: impl Into<String>) -> Check {
        let check = Check {
            name,
            all: self.clone(),
        };
        check.not_ready(why_not);
        check
    }

    /// True while every check is content.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.borrow().values().all(Option::is_none)
    }

    /// The checks that are not content, with their sentences, by name.
    #[must_use]
    pub fn complaints(&self) -> Vec<(&'static str, String)> {
        let checks = self.0.borrow();
        let complaints = checks.iter();
        complaints
            .filter_map(|(name, why)| why.clone().map(|why| (*name, why)))
            .collect()
    }

    /// Returns once every check is content.
    pub async fn ready(&self) {
        // The sender lives in `self`: the wait can't fail.
        let _ = self
            .0
            .subscribe()
            .wait_for(|checks| checks.values().all(Option::is_none))
            .await;
    }

    fn set(&self, name: &'static str, why_not: Option<String>) {
        self.0.send_if_modified(|checks| {
            if checks.get(name) == Some(&why_not) {
                return false;
            }
            match &why_not {
                Some(why) => tracing::info!(check = name, "not ready: {why}"),
                None => tracing::info!(check = name, "ready"),
            }
            checks.insert(name, why_not);
            true
        });
    }
}

/// One check of a [`Readiness`], held by the part of the program that knows.
#[derive(Debug, Clone)]
pub struct Check {
    name: &'static str,
    all: Readiness,
}

impl Check {
    /// The check is content.
    pub fn ready(&self) {
        self.all.set(self.name, None);
    }

    /// The check is not content; `why_not` names the object, the cause and the remedy.
    pub fn not_ready(&self, why_not: impl Into<String>) {
        self.all.set(self.name, Some(why_not.into()));
    }

    /// [`ready`](Self::ready) or [`not_ready`](Self::not_ready), as the result says.
    pub fn set<E: std::fmt::Display>(&self, result: Result<(), E>) {
        match result {
            Ok(()) => self.ready(),
            Err(why) => self.not_ready(why.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_ready_when_the_last_check_is() {
        let readiness = Readiness::default();
        let sb = readiness.check("sb", "the southbound database is not connected");
        let ovs = readiness.check("ovs", "br-int is missing");
        sb.ready();
        assert_eq!(
            readiness.complaints(),
            [("ovs", "br-int is missing".to_owned())]
        );
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        ovs.set(Ok::<_, String>(()));
        waiting.await.unwrap();
        assert!(readiness.is_ready());
        sb.set(Err("lost"));
        assert!(!readiness.is_ready());
    }
}
