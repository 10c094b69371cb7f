//! The lab's Kubernetes by itself, on the reference bridge network: pods, logs, exec; its services restart; nothing stays.

use std::time::Duration;

use e2e::{Lab, LabConfig, Network, run};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: host}
spec:
  hostNetwork: true
  nodeName: n2
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: IMAGE, imagePullPolicy: Never, command: [sh, -c, 'echo hello; exec httpd -f -p 8080']}]
---
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: IMAGE, imagePullPolicy: Never, command: [httpd, -f, -p, '80']}]
";

#[test]
fn pods_run_services_restart_and_down_leaves_nothing() {
    let minute = Duration::from_secs(60);
    let lab = Lab::up(&LabConfig {
        network: Network::Bridge,
        ..LabConfig::default()
    })
    .unwrap();
    let id = lab.site.id();
    lab.apply(&PODS.replace("IMAGE", lab.image())).unwrap();
    lab.wait_ready("default", "host", minute).unwrap();
    lab.wait_ready("default", "plain", minute).unwrap();
    assert_eq!(lab.kubectl(&["logs", "host"]).unwrap(), "hello");
    assert_eq!(
        lab.pod_exec("default", "host", &["hostname"]).unwrap(),
        "n2"
    );
    let ips = lab
        .kubectl(&[
            "get",
            "pod",
            "host",
            "-o",
            "jsonpath={.status.hostIPs[*].ip}",
        ])
        .unwrap();
    let (v4, v6) = lab.node("n2").addresses();
    assert_eq!(ips, format!("{v4} {v6}"), "nodes are dual stack");
    run(&[
        "curl",
        "-sS",
        "-m5",
        "-o/dev/null",
        &format!("http://[{v6}]:8080/bin/busybox"),
    ])
    .unwrap();

    for name in ["kube-apiserver", "containerd", "kubelet"] {
        lab.node("n1").process(name).restart().unwrap();
    }
    lab.wait_for("the API server to come back", minute, |lab| {
        lab.kubectl(&["get", "nodes"]).map(|_| true)
    })
    .unwrap();
    lab.apply(
        &PODS
            .replace("IMAGE", lab.image())
            .replace("name: plain", "name: second"),
    )
    .unwrap();
    lab.wait_ready("default", "second", minute).unwrap();
    assert!(
        lab.pod_exec("default", "plain", &["hostname"])
            .unwrap()
            .contains("plain")
    );

    drop(lab);
    let left = run(&[
        "sh",
        "-c",
        &format!("ip netns list | grep ob{id}- ; ls -d /sys/fs/cgroup/*/outboard-lab/{id}; true"),
    ]);
    assert_eq!(left.unwrap(), "");
    let processes = run(&["ps", "-eo", "args"]).unwrap();
    assert!(
        !processes.contains(&format!("outboard-lab/{id}/")),
        "{processes}"
    );
}
