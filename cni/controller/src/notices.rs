//! Events on the objects that cannot have what they ask for.
//!
//! One Event per object, reason and sentence, named after them: whoever says the same again only
//! counts there, and at most once a minute. Another process, which may not read Events, counts from
//! two. (kube's own recorder knows no sentence: a second problem of the same kind would be counted
//! under the first one's.)

use crate::report::{Notice, Subject};
use crate::rows::{Problem, Unit};
use api::names::{GROUP, VERSION};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const CONTROLLER: &str = "iaas.yusur.io/cni-controller";
/// The API server takes no longer notes, in bytes, …
const NOTE: usize = 1024;
/// … and no longer instance names.
const INSTANCE: usize = 128;
/// Of an object's name, so much stands in the Event's, which has 253 characters.
const STEM: usize = 230;
/// What is said again within this time is only counted.
const QUIET: Duration = Duration::from_secs(60);
/// After this the API server has forgotten an Event, and so may we.
const FORGOTTEN: Duration = Duration::from_secs(3600);
/// So many Events are written without a pause, …
const BURST: u32 = 100;
/// … after those, one in this time.
const INTERVAL: Duration = Duration::from_millis(20);

/// Publishes notices until the token is cancelled or nobody can send any. An Event that the API
/// server does not take is logged and lost: the problem is still there, and is reported again when
/// it changes. `instance` is this process.
pub async fn run(
    client: Client,
    instance: String,
    mut notices: mpsc::Receiver<Notice>,
    stop: CancellationToken,
) {
    let mut recorder = Recorder {
        client,
        instance: cut(&instance, INSTANCE).to_owned(),
        said: HashMap::new(),
        swept: Instant::now(),
    };
    let mut pace = Pace(Instant::now());
    let publish = async {
        while let Some(notice) = notices.recv().await {
            let now = Instant::now();
            let Some(event) = recorder.due(&notice, now) else {
                continue;
            };
            tokio::time::sleep(pace.delay(now)).await;
            if let Err(error) = recorder.write(event).await {
                let Notice { about, problem, .. } = notice;
                let error = anyhow::Error::from(error);
                tracing::warn!(%about, reason = problem.reason, "the Event was not taken: {error:#}");
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = publish => {}
    }
}

/// When the next Event may be written.
struct Pace(Instant);

impl Pace {
    fn delay(&mut self, now: Instant) -> Duration {
        let burst = INTERVAL * BURST;
        self.0 = self.0.max(now.checked_sub(burst).unwrap_or(now)) + INTERVAL;
        self.0.saturating_duration_since(now)
    }
}

/// How often something was said, and when it was last written.
struct Said {
    count: i32,
    written: Instant,
}

struct Recorder {
    client: Client,
    instance: String,
    /// By namespace and name of the Event.
    said: HashMap<(String, String), Said>,
    swept: Instant,
}

impl Recorder {
    /// The Event of this notice, if it is to be written now.
    fn due(&mut self, notice: &Notice, now: Instant) -> Option<Event> {
        if now - self.swept > QUIET {
            self.swept = now;
            self.said.retain(|_, said| now - said.written < FORGOTTEN);
        }
        let event = event(notice, &self.instance);
        let Some(said) = self.said.get_mut(&key(&event)) else {
            return Some(event);
        };
        said.count = said.count.saturating_add(1);
        (now - said.written >= QUIET).then_some(event)
    }

    /// Writes the Event for the first time, or how often it was said.
    async fn write(&mut self, event: Event) -> Result<(), kube::Error> {
        let (ns, name) = key(&event);
        let api: Api<Event> = Api::namespaced(self.client.clone(), &ns);
        let counted = self.said.get(&(ns.clone(), name.clone()));
        let mut count = counted.map_or(1, |said| said.count);
        if counted.is_none() || !self.patch(&api, &name, count).await? {
            match api.create(&PostParams::default(), &event).await {
                // Another process has said it before.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    count = 2;
                    self.patch(&api, &name, count).await?;
                }
                other => drop(other?),
            }
        }
        let written = Instant::now();
        self.said.insert((ns, name), Said { count, written });
        Ok(())
    }

    /// Whether the Event is (still) there.
    async fn patch(&self, api: &Api<Event>, name: &str, count: i32) -> Result<bool, kube::Error> {
        let patch = json!({"series": {
            "count": count,
            "lastObservedTime": MicroTime(Timestamp::now()),
        }});
        let params = PatchParams::default();
        match api.patch(name, &params, &Patch::Merge(&patch)).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn key(event: &Event) -> (String, String) {
    let ObjectMeta {
        namespace, name, ..
    } = &event.metadata;
    (
        namespace.clone().unwrap_or_default(),
        name.clone().unwrap_or_default(),
    )
}

fn event(
    Notice {
        about,
        uid,
        problem,
    }: &Notice,
    instance: &str,
) -> Event {
    let Problem { reason, sentence } = problem;
    let regarding = reference(about, uid);
    let name = regarding.name.clone().unwrap_or_default();
    let said = Sha256::digest(format!("{about}\n{uid}\n{reason}\n{sentence}"));
    let mut suffix = String::new();
    for byte in said.iter().take(8) {
        // A String takes everything.
        let _ = write!(suffix, "{byte:02x}");
    }
    Event {
        metadata: ObjectMeta {
            // Those of objects that have no namespace belong into this one.
            namespace: Some(regarding.namespace.clone().unwrap_or("default".to_owned())),
            name: Some(format!("{}.{suffix}", cut(&name, STEM))),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some((*reason).to_owned()),
        note: Some(cut(sentence, NOTE).to_owned()),
        action: Some(action(about).to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

/// The beginning of the text, at most so many bytes.
fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// What was being done.
fn action(about: &Subject) -> &'static str {
    match about {
        Subject::Unit(_) => "Allocate",
        Subject::Dpu(_) => "Pair",
    }
}

fn reference(about: &Subject, uid: &str) -> ObjectReference {
    let ours = format!("{GROUP}/{VERSION}");
    let unit = match about {
        Subject::Unit(unit) => unit,
        Subject::Dpu(name) => return object(&ours, "Dpu", None, name, uid),
    };
    let (api_version, kind, ns, name) = match unit {
        Unit::Vpc(name) => (ours.as_str(), "Vpc", None, name),
        Unit::Subnet(name) => (ours.as_str(), "Subnet", None, name),
        Unit::Node(name) => ("v1", "Node", None, name),
        Unit::Service { ns, name } => ("v1", "Service", Some(ns), name),
        Unit::Pod { ns, name } => ("v1", "Pod", Some(ns), name),
    };
    object(api_version, kind, ns, name, uid)
}

fn object(
    api_version: &str,
    kind: &str,
    ns: Option<&String>,
    name: &str,
    uid: &str,
) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        namespace: ns.cloned(),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()).filter(|uid| !uid.is_empty()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_written_at_once_and_a_flood_at_its_pace() {
        let now = Instant::now();
        let mut pace = Pace(now.checked_sub(Duration::from_secs(60)).unwrap());
        let delays: Vec<Duration> = (0..BURST + 50).map(|_| pace.delay(now)).collect();
        let burst = delays.iter().filter(|delay| delay.is_zero()).count();
        assert_eq!(burst, BURST as usize);
        assert_eq!(delays.last(), Some(&(INTERVAL * 50)));
        assert_eq!(pace.delay(now + Duration::from_secs(60)), Duration::ZERO);
    }

    #[test]
    fn names_and_notes_fit() {
        let notice = Notice {
            about: Unit::pod("ns", "p".repeat(253)).into(),
            uid: "u".into(),
            problem: Problem::new("InvalidRequest", "ü".repeat(2000)),
        };
        let event = event(&notice, "i");
        assert!(event.metadata.name.unwrap().len() <= 253);
        assert_eq!(event.note.unwrap().len(), NOTE);
    }
}
