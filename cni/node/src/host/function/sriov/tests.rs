use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use lab::host_vm::HostVmSpec;

use super::*;
use crate::gateway::tests::sandbox::sh;
use crate::netlink::Move;
use crate::netns::Netns;
use crate::tests::guest::in_guest;

const PF: &str = "0000:01:00.0";
const MAC: Mac = Mac([2, 0, 0, 0, 0xcc, 3]);
const FIRST: FunctionId = FunctionId {
    physical: 0,
    r#virtual: Some(0),
};

#[test]
fn a_name_at_home_is_as_long_as_a_link_may_have() {
    let address = "0000:81:02.3".parse().unwrap();
    assert_eq!(home(Some("ens1f0"), 12, address), "ens1f0v12");
    assert_eq!(home(Some("enp129s0f0np0"), 119, address), "v81023");
    assert_eq!(home(None, 1, address), "v81023");
    let far = "10000000:81:1f.7".parse().unwrap();
    assert!(home(None, 1, far).len() <= LINK_NAME);
}

/// QEMU's igb behind an IOMMU.
fn igb(spec: &mut HostVmSpec) {
    spec.modules = ["igb", "igbvf", "vfio-pci"].map(Into::into).into();
    spec.first = ["-device", "intel-iommu,intremap=on"]
        .map(Into::into)
        .into();
    spec.kernel = vec!["intel_iommu=on".into()];
    spec.arguments = [
        "-netdev",
        "user,id=n0",
        "-device",
        "igb,bus=fn0,netdev=n0,mac=02:00:00:00:aa:01",
    ]
    .map(Into::into)
    .into();
}

/// The link of the card itself, which has two functions then.
fn begin() -> String {
    let link = sh(&format!("ls /sys/bus/pci/devices/{PF}/net"));
    let link = link.trim().to_owned();
    sh(&format!(
        "echo 2 >/sys/bus/pci/devices/{PF}/sriov_numvfs; /bin/ip link set {link} up"
    ));
    link
}

fn card() -> Arc<Card> {
    Arc::new(Card::start(
        Path::new("/sys"),
        Vec::new(),
        CancellationToken::new(),
    ))
}

fn first(card: &Card) -> Function {
    card.inventory().unwrap().swap_remove(0)
}

#[test]
fn a_function_goes_into_a_pod_and_comes_home() {
    in_guest(
        "host::function::sriov::tests::a_function_goes_into_a_pod_and_comes_home",
        igb,
        async {
            let link = begin();
            let card = card();
            let all = card.inventory().unwrap();
            assert_eq!(all.len(), 2);
            let function = &all[0];
            assert_eq!((function.id, function.vfio), (FIRST, false));
            assert_eq!(function.device, "0000:01:10.0");
            assert_eq!(function.home, format!("{link}v0"));
            let mut netlink = Netlink::open().unwrap();
            let here = card.find(FIRST, &mut netlink).unwrap().unwrap();
            assert_eq!(function.here.as_ref(), Some(&here.name));

            sh("/bin/ip netns add pod");
            let pod = Netns::of_pod(Path::new("/run/netns/pod")).unwrap();
            let step = Move {
                link: here.index,
                netns: pod.fd().as_raw_fd(),
                name: "eth0".into(),
            };
            netlink.apply(&[Change::Move(step)]).unwrap();
            assert_eq!(first(&card).here, None);
            assert_eq!(card.find(FIRST, &mut netlink).unwrap(), None);
            let also = Arc::clone(&card);
            let there = pod
                .run_blocking(move || {
                    let mut netlink = Netlink::open().unwrap();
                    let link = netlink.link("eth0").unwrap().unwrap().index;
                    let mtu = 1400;
                    let wired = [
                        Change::SetMac { link, mac: MAC },
                        Change::SetMtu { link, mtu },
                    ];
                    netlink.apply(&wired).unwrap();
                    also.find(FIRST, &mut netlink)
                })
                .unwrap();
            let there = there.unwrap().unwrap();
            assert_eq!(
                (there.name.as_str(), there.mac, there.mtu),
                ("eth0", Some(MAC), 1400)
            );

            drop(pod);
            sh("/bin/ip netns del pod
                until [ \"$(ls /sys/bus/pci/devices/0000:01:10.0/net)\" ]; do usleep 20000; done");
            let back = card.find(FIRST, &mut netlink).unwrap().unwrap();
            // The card itself is eth0 here: the kernel finds another name.
            assert!(
                link != "eth0" || back.name.starts_with("dev"),
                "{}",
                back.name
            );
            assert_eq!(back.mac, Some(MAC));
            assert_eq!(first(&card).here, Some(back.name.clone()));
            let home = Change::Rename {
                link: back.index,
                name: function.home.clone(),
            };
            netlink
                .apply(&[Change::SetDown { link: back.index }, home])
                .unwrap();
            card.tidy(function).unwrap();
            assert_eq!(first(&card).here, Some(function.home.clone()));
        },
    );
}

#[test]
fn a_function_of_a_vm_has_its_address_from_the_card() {
    in_guest(
        "host::function::sriov::tests::a_function_of_a_vm_has_its_address_from_the_card",
        igb,
        async {
            let link = begin();
            let card = card();
            // The listener's task begins, and sees what happens from then on.
            let mut changed = card.changed();
            tokio::task::yield_now().await;
            let address = |text: &str| text.parse::<PciAddress>().unwrap();
            let sysfs = Sysfs::default();
            loop {
                sysfs.bind(address("0000:01:10.0"), sriov::VFIO).unwrap();
                let told = changed.changed();
                match tokio::time::timeout(std::time::Duration::from_secs(1), told).await {
                    Ok(told) => break told.unwrap(),
                    Err(_) => drop(sysfs.release(address("0000:01:10.0")).unwrap()),
                }
            }
            let function = first(&card);
            assert!(function.vfio && function.here.is_none());
            assert_eq!(function.pci.as_deref(), Some("0000:01:10.0"));
            let mac_of = |link: &str| sh(&format!("/bin/ip link show {link} | grep 'vf 0 '"));
            card.prepare(&function, MAC).unwrap();
            assert!(
                mac_of(&link).contains(&MAC.to_string()),
                "{}",
                mac_of(&link)
            );
            card.tidy(&function).unwrap();
            assert!(
                !mac_of(&link).contains(&MAC.to_string()),
                "{}",
                mac_of(&link)
            );
            // The other one has a link, and the card says nothing of it.
            let other = card.inventory().unwrap().swap_remove(1);
            card.prepare(&other, MAC).unwrap();
            assert!(!sh(&format!("/bin/ip link show {link}")).contains(&MAC.to_string()));
        },
    );
}

#[tokio::test]
async fn a_device_id_is_a_pci_address() {
    let card = card();
    assert_eq!(card.named("0000:AF:10.2").unwrap(), "0000:af:10.2");
    let why = card.named("mlx5_core.sf.4").unwrap_err();
    assert_eq!(why.code, code::UNSUPPORTED_FIELD);
    assert!(why.cause.contains("mlx5_core.sf.4"), "{why}");
    assert!(card.named("eth0").unwrap_err().cause.contains("`eth0`"));
}
