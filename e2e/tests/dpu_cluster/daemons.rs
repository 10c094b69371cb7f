//! cni-node of either side is killed with SIGKILL: running pods notice nothing, and the next one starts.

use std::time::SystemTime;

use anyhow::Result;

use crate::recovery::{gap, unnoticed};
use crate::world::{RETURN, World};

pub(crate) fn host(world: &World<'_>) -> Result<String> {
    survives(world, |w| w.kill_daemon(w.host()))
}

pub(crate) fn dpu(world: &World<'_>) -> Result<String> {
    survives(world, |w| w.kill_daemon(w.dpu()))
}

/// The host's first, the DPU's first, both at once.
pub(crate) fn both(world: &World<'_>) -> Result<String> {
    survives(world, |w| {
        w.kill_daemon(w.host())?;
        w.kill_daemon(w.dpu())?;
        w.pair().wait(w.lab, RETURN)?;
        w.kill_daemon(w.dpu())?;
        w.kill_daemon(w.host())?;
        w.pair().wait(w.lab, RETURN)?;
        std::thread::scope(|scope| {
            let one = scope.spawn(|| w.kill_daemon(w.host()));
            w.kill_daemon(w.dpu())?;
            one.join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?
        })
    })
}

fn survives(world: &World<'_>, fault: impl Fn(&World<'_>) -> Result<()>) -> Result<String> {
    let host = world.pair().host.as_str();
    world.start(&[("ends", host)])?;
    let watch = world.watch()?;
    fault(world)?;
    let moment = SystemTime::now();
    world.start(&[("late", host)])?;
    world.serves("m", "late")?;
    world.serves(host, "late")?;
    world.delete("ends")?;
    world.daemon_ready(world.host())?;
    world.daemon_ready(world.dpu())?;
    let seen = watch.end(moment, RETURN)?;
    unnoticed(&seen)?;
    world.whole()?;
    Ok(format!("gap {}", gap(&seen)))
}
