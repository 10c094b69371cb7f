//! Many pods: daemons of both sides die while pods come and go; a host without a free function; all pods of a full host come back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use e2e::pairs::{Ping, Standing};
use e2e::{card, leaks, pods, until};

use crate::recovery::RECOVERED;
use crate::world::{RETURN, START, World};

const REPLICAS: u32 = 6;
/// Daemons that die, the host's and the DPU's in turn.
const KILLS: usize = 8;
/// Between two deaths: kubelet's and the runtime's next tries meet a daemon that lives.
const LIFE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(120);

/// Pods are deleted and made all the time, and every other second one of the daemons is killed.
pub(crate) fn daemons_killed(world: &World<'_>) -> Result<String> {
    deploy(world, REPLICAS)?;
    ready(world, REPLICAS)?;
    let ended = AtomicBool::new(false);
    let (made, killed) = std::thread::scope(|scope| {
        let churn = scope.spawn(|| -> Result<usize> {
            let mut made = 0;
            while !ended.load(Ordering::Relaxed) {
                let pods = of_case(world)?;
                for pod in pods.iter().take(3) {
                    let delete = [
                        "delete",
                        "pod",
                        "-n",
                        &world.ns,
                        pod,
                        "--wait=false",
                        "--ignore-not-found",
                    ];
                    world.lab.kubectl(&delete)?;
                    made += 1;
                }
                std::thread::park_timeout(Duration::from_millis(700));
            }
            Ok(made)
        });
        let kills = || -> Result<usize> {
            for kill in 0..KILLS {
                let sides = [world.host(), world.dpu()];
                world.kill_daemon(sides[kill % 2])?;
                std::thread::park_timeout(LIFE);
            }
            Ok(KILLS)
        };
        let killed = kills();
        ended.store(true, Ordering::Relaxed);
        let made = churn.join().map_err(|_| anyhow!("a thread panicked"))?;
        anyhow::Ok((made?, killed?))
    })?;
    world.daemon_ready(world.host())?;
    world.daemon_ready(world.dpu())?;
    ready(world, REPLICAS)?;
    for name in staying(world)? {
        world.serves("m", &name)?;
    }
    world.whole()?;
    world.scene.unchanged(&world.pair().host)?;
    leaks::wait_for_none(world.lab, LIMIT)?;
    Ok(format!("{made} pods replaced, {killed} daemons killed"))
}

/// Every function is somebody's: one more pod waits and is told so. Then the DPU reboots, and all come back.
pub(crate) fn full_host(world: &World<'_>) -> Result<String> {
    let host = world.host();
    let free = card::functions_at_home(host)?.len();
    // All at once: kubelet tries the one that is too many again only after some ten seconds.
    let names: Vec<String> = (0..=free).map(|i| format!("p{i}")).collect();
    let all: Vec<(&str, &str)> = names
        .iter()
        .map(|name| (name.as_str(), host.name()))
        .collect();
    world.create(&all)?;
    let (ready, late) = until("all pods but one to be Ready", LIMIT, || {
        let (ready, late) = by_readiness(world)?;
        ensure!(ready.len() == free, "{} of {free} are", ready.len());
        Ok(Some((ready, late)))
    })?;
    ensure!(
        card::functions_at_home(host)?.is_empty(),
        "functions are left"
    );
    let [late] = late.as_slice() else {
        anyhow::bail!("not Ready are {late:?}");
    };
    let told = until("the pod that is too many to be told", START, || {
        let about =
            format!("--field-selector=reason=FailedCreatePodSandBox,involvedObject.name={late}");
        let query = ["get", "events", "-n", &world.ns, &about];
        let text = world
            .lab
            .kubectl(&[&query[..], &["-o", "jsonpath={.items[*].message}"]].concat())?;
        Ok(text.contains("function").then_some(text))
    })?;
    world.delete(&ready[0])?;
    world.lab.wait_ready(&world.ns, late, START)?;

    let running = Standing::all(world.lab, &world.ns)?;
    ensure!(running.len() == free, "there are {} pods", running.len());
    let master = world.scene.on("m")?;
    let pings = running
        .iter()
        .map(|one| Ping::start(world.lab, master, &one.pod.ips[0]))
        .collect::<Result<Vec<_>>>()?;
    let reboot = world.lab.site.reboot(&world.pair().dpu)?;
    let now = std::time::SystemTime::now();
    for ping in &pings {
        ping.answered_after(now, RETURN)?;
    }
    let gaps = pings
        .into_iter()
        .map(Ping::stop)
        .collect::<Result<Vec<_>>>()?;
    let after = gaps
        .iter()
        .map(|gap| gap.after(reboot.network))
        .max()
        .unwrap_or_default();
    let longest = gaps.iter().map(|gap| gap.longest).max().unwrap_or_default();
    ensure!(
        after < RECOVERED,
        "the last of them was answered {after:?} after Open vSwitch was"
    );
    for (then, now) in running.iter().zip(Standing::all(world.lab, &world.ns)?) {
        ensure!(*then == now, "a pod was {then:#?}\nand is {now:#?}");
    }
    world.whole()?;
    let told = told
        .rsplit_once(": ")
        .map_or(told.as_str(), |(_, last)| last);
    Ok(format!(
        "{} pods: gap {:.1} s, all answered {:.1} s after Open vSwitch did; too many: {told}",
        running.len(),
        longest.as_secs_f32(),
        after.as_secs_f32()
    ))
}

/// Names of the case's pods that are Ready, and of those that are not.
fn by_readiness(world: &World<'_>) -> Result<(Vec<String>, Vec<String>)> {
    let list = world.json(&["get", "pods", "-n", &world.ns])?;
    let (mut ready, mut late) = (Vec::new(), Vec::new());
    for pod in list["items"].as_array().into_iter().flatten() {
        let conditions = pod["status"]["conditions"].as_array();
        let is_ready = conditions
            .into_iter()
            .flatten()
            .any(|one| one["type"] == "Ready" && one["status"] == "True");
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        if is_ready { &mut ready } else { &mut late }.push(name.to_owned());
    }
    Ok((ready, late))
}

fn of_case(world: &World<'_>) -> Result<Vec<String>> {
    let pods = pods::all(world.lab)?.into_iter();
    Ok(pods
        .filter(|pod| pod.namespace == world.ns)
        .map(|pod| pod.name)
        .collect())
}

/// Those that are not on their way out.
fn staying(world: &World<'_>) -> Result<Vec<String>> {
    let names = "go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}";
    let text = world
        .lab
        .kubectl(&["get", "pods", "-n", &world.ns, "-o", names])?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn deploy(world: &World<'_>, replicas: u32) -> Result<()> {
    let pod = world.pod("unused", &world.pair().host);
    let spec = pod.split_once("\nspec:\n").map_or("", |(_, spec)| spec);
    let spec = spec.trim_end_matches("---\n").replace("\n  ", "\n      ");
    world
        .lab
        .apply(&format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: churn, namespace: {}}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: churn}}}}\n  template:\n    metadata: {{labels: {{app: churn}}}}\n    spec:\n    {spec}",
            world.ns
        ))
        .map(drop)
}

fn ready(world: &World<'_>, count: u32) -> Result<()> {
    until(&format!("{count} pods to be Ready"), LIMIT, || {
        let deployment = world.json(&["get", "-n", &world.ns, "deployment", "churn"])?;
        let status = &deployment["status"];
        let ready = status["readyReplicas"].as_u64().unwrap_or_default();
        ensure!(ready == u64::from(count), "{ready} are");
        Ok(Some(()))
    })
}
