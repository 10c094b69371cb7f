//! Nothing is broken: who reaches whom, from where, in both families.

use anyhow::{Result, ensure};
use e2e::pairs;
use e2e::pods::Family::{V4, V6};
use e2e::until;

use crate::world::{RETURN, World};

/// Pods of hosts, of DPUs and of the master, each to all others, with small and full frames, by ping and by HTTP.
pub(crate) fn everybody(world: &World<'_>) -> Result<String> {
    let scene = world.scene;
    let mut times = Vec::new();
    for node in world.lab.nodes() {
        scene.reaches_all(node.name())?;
        times.push(scene.pings_all(node.name())?.ms);
    }
    for (to, from) in [
        ("h1", "d1"),
        ("h1", "h2"),
        ("d1", "h1"),
        ("h2", "m"),
        ("m", "h1"),
    ] {
        scene.fetches_a_mebibyte(to, from)?;
    }
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    Ok(format!(
        "{} pods, ping {mean:.2} ms in the mean",
        times.len()
    ))
}

/// A node's own processes reach its pods (kubelet's probes) and others'; Services answer nodes and pods; pods reach the outside.
pub(crate) fn nodes(world: &World<'_>) -> Result<String> {
    let scene = world.scene;
    for (node, pod_on) in [
        ("h1", "h1"),
        ("h2", "h2"),
        ("d1", "d1"),
        ("h1", "h2"),
        ("d1", "h1"),
        ("h1", "m"),
        ("m", "h2"),
    ] {
        let what = format!("node {node} to reach the pod on {pod_on}");
        until(&what, RETURN, || scene.node_reaches(node, pod_on).map(Some))?;
    }
    for node in ["m", "h1", "d1", "h2"] {
        for family in [V4, V6] {
            let what = format!("the Service to answer the pod on {node}");
            until(&what, RETURN, || scene.asks_service(node, family).map(Some))?;
            let what = format!("the Service to answer node {node}");
            until(&what, RETURN, || {
                scene.node_asks_service(node, family).map(Some)
            })?;
        }
        scene.resolves(node)?;
        scene.reaches_outside(node)?;
    }
    Ok(format!(
        "Service {} and {}",
        scene.service(V4),
        scene.service(V6)
    ))
}

/// Services whose endpoints are not pods: the API server, somebody outside, a process of the host itself, of its DPU, of another host.
/// Processes of hosts ask them as pods do.
pub(crate) fn services(world: &World<'_>) -> Result<String> {
    let ns = world.ns.as_str();
    let outside = world.lab.site.outside();
    let of = |name: &str| world.lab.node(name).addresses();
    // cni-node's admin address stands for a process of a node.
    let (web, admin) = ((80, "", "outside"), (9476, "healthz", "ok"));
    let behind = [
        ("outside", outside, web),
        ("h1", of("h1"), admin),
        ("d1", of("d1"), admin),
        ("h2", of("h2"), admin),
    ];
    let (mut manifest, mut asked) = (String::new(), Vec::new());
    for (name, (v4, v6), (port, path, answer)) in behind {
        for (family, address) in [("IPv4", v4), ("IPv6", v6)] {
            let name = format!("{name}-{}", family.to_lowercase());
            manifest += &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {ns}}}\n\
                 spec: {{ipFamilies: [{family}], ports: [{{port: 80}}]}}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: {name}, namespace: {ns}, labels: {{kubernetes.io/service-name: {name}}}}}\n\
                 addressType: {family}\nports: [{{port: {port}}}]\nendpoints: [{{addresses: [\"{address}\"]}}]\n---\n"
            );
            asked.push((name, path, answer));
        }
    }
    world.lab.apply(&manifest)?;
    // Nobody is let in there without a name: it is the API server that says so.
    let mut urls = vec![("https://10.96.0.1/livez".to_owned(), "Unauthorized")];
    for (name, path, answer) in asked {
        let query = ["get", "service", "-n", ns, &name, "-o"];
        let query = [&query[..], &["jsonpath={.spec.clusterIP}"]].concat();
        let ip = world.lab.kubectl(&query)?;
        let ip = if ip.contains(':') {
            format!("[{ip}]")
        } else {
            ip
        };
        urls.push((format!("http://{ip}/{path}"), answer));
    }
    for node in ["h1", "h2"] {
        for (url, answer) in &urls {
            let argv = ["curl", "-sS", "-k", "-g", "-m", "3", url];
            until(&format!("{url} to answer node {node}"), RETURN, || {
                let said = world.lab.node(node).exec(&argv)?;
                ensure!(said.contains(answer), "{said:?} answered");
                Ok(Some(()))
            })?;
            until(
                &format!("{url} to answer the pod on {node}"),
                RETURN,
                || {
                    let pod = &world.scene.on(node)?.pod;
                    let said = world.lab.pod_exec(&pod.namespace, &pod.name, &argv)?;
                    ensure!(said.contains(answer), "{said:?} answered");
                    Ok(Some(()))
                },
            )?;
        }
    }
    Ok(format!(
        "{} Services from two hosts and their pods",
        urls.len()
    ))
}

/// No process, no socket, no bridge of Open vSwitch or OVN on the hosts; on the DPUs all of it.
pub(crate) fn no_switch(world: &World<'_>) -> Result<String> {
    for name in ["h1", "h2"] {
        let host = world.lab.node(name);
        let found = pairs::switch_processes(host)?;
        ensure!(found.is_empty(), "on {name} there are {found:?}");
        let links = host.exec(&["ip", "-o", "link"])?;
        ensure!(
            !links.contains("br-int"),
            "on {name} there is br-int: {links}"
        );
        ensure!(
            !host.path("/run/openvswitch/db.sock").exists(),
            "{name} has a database socket"
        );
        let certificate = host.path("/var/lib/outboard/identity/tls.crt");
        ensure!(
            !certificate.exists(),
            "host {name} has a chassis certificate"
        );
        let chassis = world.lab.sbctl(&[
            "--bare",
            "--columns=name",
            "find",
            "Chassis",
            &format!("name={name}"),
        ])?;
        ensure!(chassis.is_empty(), "host {name} is a chassis");
    }
    let dpu = pairs::switch_processes(world.dpu())?;
    ensure!(dpu.len() >= 3, "on the DPU there are only {dpu:?}");
    Ok(format!("on a DPU: {}", dpu.join(", ")))
}
