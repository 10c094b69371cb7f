//! What can be asked of a volume, and of the card.

use std::time::Duration;

use proto::card::v1::{Function, InventoryResponse, Source, SourceState};
use proto::volume::v1::{ExposureKind, FunctionCount, Limits};
use tokio::time::Instant;

use crate::bridge::{Bridge, WORK};
use crate::card::{Error, Look, Result};
use crate::wanted;

/// How long a look may take.
const LOOK: Duration = Duration::from_secs(10);

impl Bridge {
    /// A source, with how it is now.
    pub(crate) async fn source(&self, name: &str) -> Result<Source> {
        if !self.objects.is_there(name) {
            return Err(Error::NotFound(format!("there is no {name}")));
        }
        let volume = wanted::volume(&self.objects, name, None)?;
        let look = self.card.look(&volume, false, Instant::now() + LOOK);
        self.described(name, look.await)
    }

    /// A source as a look found it.
    pub(crate) fn described(&self, name: &str, look: Result<Look>) -> Result<Source> {
        let mut source: Source = self.get(name)?;
        match look {
            Ok(look) => {
                source.size_bytes = look.size;
                source.block_size = look.block_size;
                // A dead loop device is no trouble of the source's.
                let serves = look.size > 0 || look.trouble.is_none();
                let state = if serves {
                    SourceState::Connected
                } else {
                    SourceState::Failed
                };
                source.state = state.into();
                source.message = if serves {
                    String::new()
                } else {
                    look.trouble.unwrap_or_default()
                };
            }
            Err(why) => {
                source.state = SourceState::Failed.into();
                source.message = why.to_string();
            }
        }
        Ok(source)
    }

    /// Takes over the size that the source has grown to.
    pub(crate) async fn resize(&self, name: &str, size: u64) -> Result<u64> {
        let base = wanted::base(&self.objects, name)?;
        let now = {
            let _volume = self.lock(&base).await;
            let volume = wanted::volume(&self.objects, &base, None)?;
            self.card
                .resize(&volume, size, Instant::now() + WORK)
                .await?
        };
        for exposer in wanted::exposers(&self.objects, &base) {
            self.announce(&exposer).await;
        }
        self.announce(&base).await;
        Ok(now)
    }

    /// Replaces the limits of the volume of this name.
    pub(crate) async fn set_limits(&self, name: &str, limits: &Limits) -> Result<()> {
        let exclude = |total: u64, one: u64, other: u64| total > 0 && (one > 0 || other > 0);
        if exclude(limits.iops, limits.read_iops, limits.write_iops)
            || exclude(limits.bytes, limits.read_bytes, limits.write_bytes)
        {
            return Err(Error::Invalid(
                "limits: a rate of both directions and one of a single direction exclude each other".into(),
            ));
        }
        let base = wanted::base(&self.objects, name)?;
        let _volume = self.lock(&base).await;
        let before = self.objects.set_limits(name, limits)?;
        fail::fail_point!("limits::recorded");
        let volume = wanted::volume(&self.objects, &base, None)?;
        let set = self.card.limit(&volume, Instant::now() + WORK).await;
        if let Err(Error::Unable(_)) = &set {
            self.objects.set_limits(name, &before)?;
        }
        set
    }

    /// What the card can do, and what of it is taken.
    pub(crate) async fn inventory(&self) -> Result<InventoryResponse> {
        let abilities = self.card.abilities();
        let functions = self.card.functions(Instant::now() + LOOK).await?;
        let taken = wanted::functions(&self.objects);
        let user = |id| {
            taken
                .iter()
                .find(|(taken, _)| *taken == id)
                .map(|(_, name)| name.clone())
        };
        let mut counts: Vec<FunctionCount> = abilities
            .local
            .iter()
            .map(|kind| FunctionCount {
                kind: (*kind).into(),
                total: 0,
                free: 0,
            })
            .collect();
        for kind in [ExposureKind::NvmeFunction, ExposureKind::VirtioBlkFunction] {
            let able: Vec<_> = functions
                .iter()
                .filter(|function| function.kinds.contains(&kind))
                .collect();
            let free = able
                .iter()
                .filter(|function| !function.occupied && user(function.id).is_none())
                .count();
            if !able.is_empty() {
                let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
                counts.push(FunctionCount {
                    kind: kind.into(),
                    total: number(able.len()),
                    free: number(free),
                });
            }
        }
        let functions = functions.into_iter().map(|function| {
            let used_by = user(function.id).unwrap_or_default();
            Function {
                id: Some(function.id),
                kinds: function.kinds.iter().map(|kind| i32::from(*kind)).collect(),
                pci_address: function.pci_address,
                held_by_host: function.occupied && used_by.is_empty(),
                used_by,
            }
        });
        Ok(InventoryResponse {
            card: abilities.kind.to_owned(),
            counts,
            sources: abilities
                .sources
                .iter()
                .map(|kind| i32::from(*kind))
                .collect(),
            functions: functions.collect(),
            online_resize: abilities.online_resize,
            survives_engine_restart: abilities.survives_engine_restart,
            epoch: Some(self.epoch()),
        })
    }
}
