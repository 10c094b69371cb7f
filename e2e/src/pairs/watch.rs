//! What running pods of a host notice while something is done to it or to its DPU.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::scene::PairScene;
use super::{Pair, Ping};

/// Pings from and to the standing pod of a host, as long as something is done.
pub struct Watch<'a> {
    scene: &'a PairScene<'a>,
    host: String,
    pings: Vec<Ping>,
}

/// What they saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watched {
    /// The longest time without an answer, of all pings.
    pub gap: Duration,
    /// How long after the moment that was named the last of them was answered again.
    pub after: Duration,
}

impl<'a> Watch<'a> {
    /// Begins: to the host's pod from the master's (IPv4), from it to the master's (IPv6) and to the other hosts' (IPv4). Not to the
    /// DPU's own: after a reboot that one is made anew, and when it answers is another question.
    ///
    /// # Errors
    /// One of them is not answered.
    pub fn begin(scene: &'a PairScene<'a>, pair: &Pair) -> Result<Self> {
        let master = scene.on(scene.lab().site.master().name())?;
        let pod = scene.on(&pair.host)?;
        let start = |from, to: &str| Ping::start(scene.lab(), from, to);
        let mut pings = vec![
            start(master, &pod.pod.ips[0])?,
            start(pod, &master.pod.ips[1])?,
        ];
        for other in super::of(scene.lab()).iter().filter(|other| *other != pair) {
            pings.push(start(pod, &scene.on(&other.host)?.pod.ips[0])?);
        }
        Ok(Self {
            pings,
            host: pair.host.clone(),
            scene,
        })
    }

    /// Waits until all are answered (again), and the host's pod is still the one it was. `moment` is what the time is counted from.
    ///
    /// # Errors
    /// One is not answered in time, or the pod is another one.
    pub fn end(self, moment: SystemTime, limit: Duration) -> Result<Watched> {
        let now = SystemTime::now();
        for ping in &self.pings {
            ping.answered_after(now, limit)?;
        }
        self.scene.unchanged(&self.host)?;
        let gaps = self
            .pings
            .into_iter()
            .map(Ping::stop)
            .collect::<Result<Vec<_>>>()?;
        Ok(Watched {
            gap: gaps.iter().map(|gap| gap.longest).max().unwrap_or_default(),
            after: gaps
                .iter()
                .map(|gap| gap.after(moment))
                .max()
                .unwrap_or_default(),
        })
    }
}
