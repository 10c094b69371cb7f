use super::*;
use crate::gateway::tests::sandbox::sh;
use crate::tests::guest::in_guest;

fn provider(uplinks: &[&str]) -> Switchdev {
    Switchdev {
        sysfs: Sysfs::default(),
        uplinks: uplinks.iter().map(|uplink| (*uplink).to_owned()).collect(),
    }
}

fn function(vf: u32) -> CardFunction {
    CardFunction {
        physical: 0,
        vf: Some(vf),
    }
}

fn new_card(id: u32, functions: u32) {
    sh(&format!(
        "echo '{id} 1' >/sys/bus/netdevsim/new_device
         echo {functions} >/sys/bus/netdevsim/devices/netdevsim{id}/sriov_numvfs"
    ));
}

fn mode(id: u32, mode: &str) {
    sh(&format!(
        "/sbin/devlink dev eswitch set netdevsim/netdevsim{id} mode {mode}"
    ));
}

#[test]
fn representors_are_those_of_the_chosen_card() {
    in_guest(
        "dpu::representor::switchdev::tests::representors_are_those_of_the_chosen_card",
        |spec| spec.modules = vec!["netdevsim".into()],
        async {
            new_card(10, 2);
            let any = provider(&[]);
            assert_eq!(any.find(function(0), None).unwrap(), None);
            assert_eq!(any.count(None).unwrap(), 0);
            mode(10, "switchdev");
            let found = any.find(function(1), None).unwrap().unwrap();
            assert_eq!(found.plug, Plug::System);
            assert_eq!(any.count(None).unwrap(), 2);
            assert_eq!(any.find(function(2), None).unwrap(), None);
            // Its functions are of this machine's own controller, not of an external one.
            assert_eq!(any.find(function(1), Some(1)).unwrap(), None);
            assert_eq!(any.find(function(1), Some(0)).unwrap(), Some(found.clone()));

            sh(&format!("/bin/ip link set {} name tenant", found.link));
            let renamed = any.find(function(1), None).unwrap().unwrap();
            assert_eq!(renamed.link, "tenant");

            new_card(20, 3);
            mode(20, "switchdev");
            let why = any.find(function(1), None).unwrap_err().to_string();
            assert!(
                why.contains("netdevsim10")
                    && why.contains("netdevsim20")
                    && why.contains("--uplink"),
                "{why}"
            );
            let chosen = provider(&["netdevsim10"]);
            assert_eq!(chosen.find(function(1), None).unwrap(), Some(renamed));
            assert_eq!(chosen.find(function(2), None).unwrap(), None);
            assert_eq!(provider(&["netdevsim20"]).count(None).unwrap(), 3);

            // The card loses its functions and has them again.
            mode(10, "legacy");
            assert_eq!(any.count(None).unwrap(), 3);
            let why = chosen.find(function(1), None);
            assert_eq!(why.unwrap(), None);
            mode(10, "switchdev");
            assert!(chosen.find(function(1), None).unwrap().is_some());
        },
    );
}
