//! kill -9 of either cni-node between any two steps of an ADD and a DEL, while kubelet and the other side go on.
//!
//! One life ends at a step and the next one begins with the next step armed: what a death left is found by a daemon that will die
//! itself, and kubelet's second tries come when it pleases. The host's steps are gone through on one pair while the DPU's are on the
//! other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use e2e::pairs::Pair;
use e2e::{Node, leaks, run, until};

use crate::world::{RETURN, START, SYSTEM, World};

/// A pod in whose start a daemon died is tried again by kubelet after 10 to 15 seconds.
const SECOND_TRY: Duration = Duration::from_secs(120);

pub(crate) fn of_both(world: &World<'_>) -> Result<String> {
    let (one, other) = (world.pair(), world.other_pair());
    let host = Lane::new(world, one, &one.host, "host", ("lib.rs", "HOST_FAILPOINTS"))?;
    let dpu = Lane::new(
        world,
        other,
        &other.dpu,
        "dpu",
        ("dpu/mod.rs", "FAILPOINTS"),
    )?;
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| dpu.run());
        let run = host.run();
        beside
            .join()
            .map_err(|_| anyhow!("a thread panicked"))
            .and_then(|beside| beside)
            .and(run)
    })?;
    for pair in [one, other] {
        pair.wait(world.lab, RETURN)?;
        world.scene.unchanged(&pair.host)?;
    }
    leaks::wait_for_none(world.lab, RETURN)?;
    Ok(format!(
        "{} + {}: {} {}",
        host.steps.len(),
        dpu.steps.len(),
        host.steps.join(" "),
        dpu.steps.join(" ")
    ))
}

/// A daemon that dies at all of its steps in turn, and pods of the host of its pair.
struct Lane<'a> {
    world: &'a World<'a>,
    pair: &'a Pair,
    node: &'a Node,
    /// ConfigMap that says where the next life ends.
    faults: String,
    side: &'static str,
    steps: Vec<String>,
}

impl<'a> Lane<'a> {
    fn new(
        world: &'a World<'a>,
        pair: &'a Pair,
        node: &str,
        side: &'static str,
        list: (&str, &str),
    ) -> Result<Self> {
        Ok(Self {
            world,
            pair,
            node: world.lab.node(node),
            faults: format!("outboard-faults-{side}"),
            side,
            steps: steps(list)?,
        })
    }

    fn run(&self) -> Result<()> {
        let done = self.all_steps();
        let disarmed = self.arm(None);
        done?;
        disarmed?;
        // Where the last life began before that was seen.
        if self.life()?.1.is_some() {
            self.world.kill_daemon(self.node)?;
        }
        self.world.daemon_ready(self.node)?;
        ensure!(self.life()?.1.is_none(), "it is armed for ever");
        Ok(())
    }

    /// ADD's steps by pods that begin, each of which kubelet has to try again; then DEL's by the same pods' ends.
    fn all_steps(&self) -> Result<()> {
        let ends = self.steps.iter().position(|step| step.contains("del_"));
        let (begins, ends) = self.steps.split_at(ends.context("no step of a DEL")?);
        ensure!(begins.len() >= ends.len(), "more ends than beginnings");
        let (world, host) = (self.world, self.pair.host.as_str());
        let pods: Vec<String> = (0..begins.len())
            .map(|number| format!("{}-{number}", self.side))
            .collect();
        self.die_at_each(begins, &pods, |pod| world.create(&[(pod, host)]))?;
        for pod in &pods {
            world.lab.wait_ready(&world.ns, pod, SECOND_TRY)?;
            world.serves("m", pod)?;
        }
        self.die_at_each(ends, &pods, |pod| {
            let delete = ["delete", "pod", "-n", &world.ns, pod, "--wait=false"];
            world.lab.kubectl(&delete).map(drop)
        })?;
        // Those that are on their way out are waited for.
        let mut delete = vec!["delete", "pods", "-n", &world.ns, "--ignore-not-found"];
        delete.extend(["--timeout=120s"]);
        delete.extend(pods.iter().map(String::as_str));
        world.lab.kubectl(&delete).map(drop)
    }

    /// Does something to a pod for each of the steps, and sees the daemon die.
    fn die_at_each(
        &self,
        steps: &[String],
        pods: &[String],
        cause: impl Fn(&str) -> Result<()>,
    ) -> Result<()> {
        for (number, (step, pod)) in steps.iter().zip(pods).enumerate() {
            let next = steps.get(number + 1).map(String::as_str);
            self.dies_at(step, next, || cause(pod))
                .with_context(|| format!("killed at {step}, by pod {pod}"))?;
        }
        Ok(())
    }

    /// A life that ends at the step; the next one's end is said while this one lasts.
    fn dies_at(
        &self,
        step: &str,
        next: Option<&str>,
        cause: impl Fn() -> Result<()>,
    ) -> Result<()> {
        let pid = loop {
            let (pid, end) = self.life()?;
            if end.as_deref() == Some(step) {
                break pid;
            }
            self.arm(Some(step))?;
            // It may have ended by itself.
            let _ = run(&["kill", "-KILL", &pid]);
            self.world.replaced(self.node, &pid)?;
        };
        self.arm(next)?;
        // Kubelet may have it die by an earlier pod before it is ready.
        until("the daemon to be ready, or dead", START, || {
            let lives = self
                .world
                .daemon_pid(self.node)?
                .is_some_and(|now| now == pid);
            Ok((!lives || self.world.admin(self.node, "readyz").is_ok()).then_some(()))
        })?;
        cause()?;
        self.world.replaced(self.node, &pid)
    }

    /// The daemon that runs, and the step at which it will die.
    fn life(&self) -> Result<(String, Option<String>)> {
        let what = format!("cni-node on {} to run", self.node.name());
        until(&what, START, || {
            let Some(pid) = self.world.daemon_pid(self.node)? else {
                return Ok(None);
            };
            // It may end between the two looks.
            let variables = fs::read_to_string(format!("/proc/{pid}/environ"))?;
            let end = variables
                .split('\0')
                .find_map(|one| one.strip_prefix("OUTBOARD_KILL_AT="));
            Ok(Some((pid, end.map(str::to_owned))))
        })
    }

    /// Says where daemons of this side that begin from now on die.
    fn arm(&self, step: Option<&str>) -> Result<()> {
        let (lab, faults) = (self.world.lab, self.faults.as_str());
        let Some(step) = step else {
            let delete = ["delete", "configmap", "-n", SYSTEM, faults];
            let delete = [&delete[..], &["--ignore-not-found"]].concat();
            return lab.kubectl(&delete).map(drop);
        };
        lab.apply(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {faults}, namespace: {SYSTEM}}}\n\
             data: {{OUTBOARD_KILL_AT: \"{step}\"}}\n"
        ))
        .map(drop)
    }
}

/// The steps that cni-node's source lists.
fn steps((file, list): (&str, &str)) -> Result<Vec<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../cni/node/src")
        .join(file);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = text
        .split(&format!("pub const {list}: "))
        .nth(1)
        .and_then(|rest| rest.split_once(" = ")?.1.split("];").next())
        .with_context(|| format!("no list {list} in {}", path.display()))?;
    let steps: Vec<String> = found
        .split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    ensure!(!steps.is_empty(), "{list} is empty");
    Ok(steps)
}
