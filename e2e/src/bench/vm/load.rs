//! What goes between the VM and the pod, and how it is counted: by the links of those who receive.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Ends, IFNAME};
use crate::bench::flood::Sent;
use crate::bench::samples::Samples;
use crate::libvirt::Domain;
use crate::{images, wait};

/// In the smallest frame that pktgen makes.
const FRAME: u16 = 60;
/// Nobody listens there.
const DISCARD: u16 = 9;
const PINGS: &str = "200";
const REACHED: Duration = Duration::from_secs(30);

/// A VM that runs, and its peer.
pub(super) struct Load<'a> {
    ends: &'a Ends<'a>,
    domain: &'a Domain<'a>,
    seconds: u16,
}

impl<'a> Load<'a> {
    /// Gives the guest its address, and waits until the pod reaches it.
    pub(super) fn new(ends: &'a Ends<'a>, domain: &'a Domain<'a>, seconds: u16) -> Result<Self> {
        let address = ends.vm.facts.ips[0];
        domain.run(&format!(
            "/bin/ip addr add {address} dev eth0 && /bin/ip link set eth0 up"
        ))?;
        let load = Self {
            ends,
            domain,
            seconds,
        };
        wait::until("the VM to answer", REACHED, || {
            load.ends.peer_pod.ping(&load.ends.vm.v4()).map(Some)
        })?;
        Ok(load)
    }

    /// Pings by the pod, in ms.
    pub(super) fn round_trips(&self, samples: &mut Samples) -> Result<()> {
        let to = self.ends.vm.v4();
        let argv = ["ping", "-n", "-c", PINGS, "-i", "0.01", "-W", "1", &to];
        let said = self.ends.peer_pod.exec(&argv)?;
        let times = said.lines().filter_map(|line| line.split_once("time="));
        let before = samples.values().len();
        for (_, time) in times {
            let number = time.split_whitespace().next().unwrap_or_default();
            samples.note(number.parse().with_context(|| format!("ping: {time}"))?);
        }
        ensure!(samples.values().len() > before, "ping said {said}");
        Ok(())
    }

    /// Packets per second that reach the pod, while the guest's kernel sends as many as go.
    pub(super) fn to_pod(&self) -> Result<f64> {
        let (peer, seconds) = (&self.ends.peer, self.seconds);
        let before = self.arrived()?;
        let said = self.domain.run(&format!(
            "cd /proc/net/pktgen\nsay() {{ echo \"$2\" >\"$1\" || exit 1; }}\nsay kpktgend_0 rem_device_all\n\
             say kpktgend_0 'add_device eth0'\nfor word in 'count 0' 'delay 0' 'pkt_size {FRAME}' 'dst {ip}' 'dst_mac {mac}'; do\n\
             say eth0 \"$word\"\ndone\ntimeout {seconds} sh -c 'echo start >pgctrl'\nusleep 300000\ngrep Result: eth0",
            ip = peer.v4(),
            mac = peer.facts.mac,
        ))?;
        // "Result: OK: 3000123(c2999000+d1123) usec, 123456 (60byte,0frags)"
        let time = said
            .split_once("OK: ")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
        let time: f64 = time
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("pktgen said {said:?}"))?;
        let count = u32::try_from(self.arrived()? - before)?;
        ensure!(count > 0, "no packet of the VM reached the pod: {said}");
        Ok(f64::from(count) / time * 1e6)
    }

    /// Packets per second that reach the guest, while the pod sends as many as it can.
    pub(super) fn to_vm(&self) -> Result<f64> {
        let count = || -> Result<u32> {
            let said = self
                .domain
                .run("cat /sys/class/net/eth0/statistics/rx_packets")?;
            Ok(said.parse()?)
        };
        let before = count()?;
        let to = format!("{}:{DISCARD}", self.ends.vm.v4());
        let time = (u32::from(self.seconds) * 1000).to_string();
        let said = self
            .ends
            .peer_pod
            .exec(&[&images::program("flood")?, &to, &time])?;
        let sent: Sent = serde_json::from_str(&said)?;
        let received = f64::from(count()?.wrapping_sub(before));
        ensure!(
            received > 0.0,
            "of {} packets none reached the VM",
            sent.datagrams
        );
        Ok(received / Duration::from_nanos(sent.nanoseconds).as_secs_f64())
    }

    /// What the pod's link has received so far.
    fn arrived(&self) -> Result<u64> {
        let links = self
            .ends
            .peer_pod
            .ip(&["-s", "link", "show", "dev", IFNAME])?;
        let packets = links[0]["stats64"]["rx"]["packets"].as_u64();
        packets.with_context(|| format!("no counters: {links}"))
    }
}
