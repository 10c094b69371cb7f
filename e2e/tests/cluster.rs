//! A cluster of two nodes with Outboard from its own manifests: everything that the demo shows, and nothing left of it.

use std::time::Duration;

use e2e::checks::{self, Scene};
use e2e::{Lab, LabConfig, leaks};

#[test]
fn pods_services_and_the_outside_reach_each_other_and_nothing_is_left() {
    let lab = Lab::up(&LabConfig::default()).unwrap();
    let scene = Scene::deploy(&lab).unwrap();
    leaks::wait_for_none(&lab, Duration::from_secs(30)).unwrap();
    let failures: Vec<String> = checks::all()
        .iter()
        .filter_map(|check| match check.run(&scene) {
            Ok(seen) => {
                eprintln!("ok      {} ({:.2} ms): {}", check.what, seen.ms, seen.text);
                None
            }
            Err(error) => Some(format!(
                "{}, {} to {}: {error:#}",
                check.what, check.from, check.to
            )),
        })
        .collect();
    assert!(
        failures.is_empty(),
        "{} checks failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    scene.remove().unwrap();
    leaks::wait_for_none(&lab, Duration::from_secs(30)).unwrap();
}
