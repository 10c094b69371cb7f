//! A card whose switch the kernel knows (`switchdev`): each function of the host has a link here that stands for it.

use std::io;

use sriov::devlink::Devlink;
use sriov::{Ports, Scope, Sysfs};

use super::{CardFunction, Plug, Provider, Representor};

/// The provider.
pub(super) struct Switchdev {
    /// The kernel's sysfs.
    pub(super) sysfs: Sysfs,
    /// Flag `--uplink`.
    pub(super) uplinks: Vec<String>,
}

impl Switchdev {
    fn ports(&self) -> Result<Ports, sriov::Error> {
        // Anew each time: a socket belongs to its thread's namespace, and is one question at a time.
        self.sysfs.ports(Devlink::open()?.as_mut())
    }

    fn scope(&self, controller: Option<u32>) -> Scope {
        Scope {
            uplinks: self.uplinks.clone(),
            controller,
        }
    }
}

fn found(ports: &Ports, function: CardFunction, scope: &Scope) -> io::Result<Option<Representor>> {
    let found = ports
        .find(function.physical, function.vf, scope)
        .map_err(io::Error::other)?;
    Ok(found.map(|port| Representor {
        link: port.link.clone(),
        plug: Plug::System,
    }))
}

impl Provider for Switchdev {
    fn find(
        &self,
        function: CardFunction,
        controller: Option<u32>,
    ) -> io::Result<Option<Representor>> {
        let ports = self.ports().map_err(io::Error::other)?;
        found(&ports, function, &self.scope(controller))
    }

    fn find_all(
        &self,
        functions: &[CardFunction],
        controller: Option<u32>,
    ) -> Vec<io::Result<Option<Representor>>> {
        let (ports, scope) = (self.ports(), self.scope(controller));
        let each = functions.iter();
        each.map(|function| match &ports {
            Ok(ports) => found(ports, *function, &scope),
            Err(why) => Err(io::Error::other(why.to_string())),
        })
        .collect()
    }

    fn count(&self, controller: Option<u32>) -> io::Result<u32> {
        let ports = self.ports().map_err(io::Error::other)?;
        let count = ports
            .count(&self.scope(controller))
            .map_err(io::Error::other)?;
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests;
