//! The share of flows that the card has taken over, as ovs-vswitchd counts it.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::metrics::Metrics;
use crate::ovn_controller;

const PERIOD: Duration = Duration::from_secs(15);

/// Flows of all datapaths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flows {
    pub(super) all: u64,
    pub(super) offloaded: u64,
}

/// Asks every 15 s. Nothing depends on the answer: without one there is no metric.
pub(super) async fn run(rundir: PathBuf, metrics: Metrics, stop: CancellationToken) {
    loop {
        let answer = ovn_controller::ask(&rundir, "ovs-vswitchd", "upcall/show").await;
        if let Err(why) = &answer {
            debug!("the share of offloaded flows is not known: {why}");
        }
        metrics.flows(answer.ok().map(|text| parse(&text)));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Of `upcall/show`, for each datapath: `  flows         : (current 12) (avg 9) …`, and with hw-offload
/// `  offloaded flows : 5` (ovs-vswitchd(8)). It costs nothing, where a dump of all flows takes their locks.
fn parse(text: &str) -> Flows {
    let mut flows = Flows::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let number = || {
            let digits = value.trim().trim_start_matches("(current").trim_start();
            let end = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            digits[..end].parse::<u64>().unwrap_or_default()
        };
        match key.trim() {
            "flows" => flows.all += number(),
            "offloaded flows" => flows.offloaded += number(),
            _ => {}
        }
    }
    flows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::ovn::Ovn;
    use crate::gateway::tests::sandbox::{sandboxed, sh};

    #[test]
    fn both_numbers_are_read() {
        let text = "system@ovs-system:\n  flows         : (current 12) (avg 9) (max 40) (limit 200000)\n  offloaded flows : 5\n  \
                    dump duration : 1ms\n  ufid enabled : true\n\n  23: (keys 3)\nnetdev@ovs-netdev:\n  flows         : (current 2)";
        let flows = Flows {
            all: 14,
            offloaded: 5,
        };
        assert_eq!(parse(text), flows);
        assert_eq!(parse(""), Flows::default());
    }

    #[test]
    fn a_real_ovs_vswitchd_tells_its_flows() {
        sandboxed(
            "dpu::offload::tests::a_real_ovs_vswitchd_tells_its_flows",
            async {
                let ovn = Ovn::start().await;
                let home = ovn.home();
                ovn.vsctl("add-br br0 -- set bridge br0 datapath_type=netdev");
                sh("ip link add a0 type veth peer name a1
                    ip link set a0 up; ip link set a1 up
                    ip addr add 10.9.0.1/24 dev a0");
                ovn.vsctl("add-port br0 a1");
                sh("ping -c2 -i0.2 -W1 10.9.0.2 || true");
                // Where a packaged ovs-vswitchd has it.
                sh(&format!(
                    "cd {}; for f in *.ctl; do ovs-appctl -t $PWD/$f version | grep -q ovs-vswitchd && ln -s $f ovs-vswitchd.1.ctl; done; true",
                    home.display()
                ));
                let text = ovn_controller::ask(home, "ovs-vswitchd", "upcall/show").await;
                let flows = parse(&text.unwrap());
                assert!(flows.all > 0 && flows.offloaded == 0, "{flows:?}");
            },
        );
    }
}
