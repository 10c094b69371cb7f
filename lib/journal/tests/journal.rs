//! The journal against a real directory: a model, other boots, damage.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use journal::{Boot, Error, Journal};
use proptest::prelude::*;

fn contents(journal: &Journal<Vec<String>>) -> BTreeMap<String, Vec<String>> {
    journal
        .iter()
        .map(|(key, record)| (key, record.value.clone()))
        .collect()
}

#[derive(Debug, Clone)]
enum Step {
    Insert(String, Vec<String>),
    Update(String, Vec<String>),
    Remove(String),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    // Few keys, so that steps meet; with characters that no file name has.
    let key =
        || prop_oneof![Just("a"), Just("A/b"), Just(".c"), Just("ü%2F")].prop_map(String::from);
    let value = || proptest::collection::vec(".{0,5}", 0..3);
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Step::Insert(key, value)),
        2 => (key(), value()).prop_map(|(key, value)| Step::Update(key, value)),
        2 => key().prop_map(Step::Remove),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn it_behaves_like_a_map_that_survives(steps in proptest::collection::vec(step(), 0..25)) {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path(), "b1").unwrap();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(key, value) => {
                    let done = journal.insert(&key, value.clone());
                    if let Entry::Vacant(slot) = model.entry(key) {
                        done.unwrap();
                        slot.insert(value);
                    } else {
                        let refused = matches!(done, Err(Error::Exists { .. }));
                        prop_assert!(refused);
                    }
                }
                Step::Update(key, value) => {
                    let done = journal.update(&key, value.clone());
                    if let Some(slot) = model.get_mut(&key) {
                        done.unwrap();
                        *slot = value;
                    } else {
                        let refused = matches!(done, Err(Error::Absent { .. }));
                        prop_assert!(refused);
                    }
                }
                Step::Remove(key) => {
                    let removed = journal.remove(&key).unwrap();
                    prop_assert_eq!(removed.map(|record| record.value.clone()), model.remove(&key));
                }
                Step::Reopen => {
                    drop(journal);
                    journal = Journal::open(dir.path(), "b1").unwrap();
                }
            }
            prop_assert_eq!(contents(&journal), model.clone());
        }
        prop_assert!(journal.quarantined().is_empty());
    }
}

#[test]
fn records_of_an_earlier_boot_are_told_apart_until_they_are_updated() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/by/open");
    let journal = Journal::open(&path, "b1").unwrap();
    journal.insert("old", 1).unwrap();
    assert_eq!(journal.get("old").unwrap().boot, Boot::This);
    drop(journal);

    let journal = Journal::open(&path, "b2").unwrap();
    let boot_id = "b1".to_owned();
    assert_eq!(journal.get("old").unwrap().boot, Boot::Earlier { boot_id });
    journal.update("old", 2).unwrap();
    journal.insert("new", 3).unwrap();
    drop(journal);

    let journal = Journal::<i32>::open(&path, "b2").unwrap();
    assert!(journal.iter().all(|(_, record)| record.boot == Boot::This));
    assert_eq!(journal.len(), 2);
}

#[test]
fn damage_is_set_aside_with_a_sentence_and_the_rest_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let journal = Journal::open(dir.path(), "b1").unwrap();
    journal.insert("good", "x".to_owned()).unwrap();
    journal.insert("moved", "y".to_owned()).unwrap();
    drop(journal);
    std::fs::write(at("half.json"), "{\"format\":1,\"key\":\"ha").unwrap();
    std::fs::write(at("empty.json"), "").unwrap();
    std::fs::write(
        at("type.json"),
        r#"{"format":1,"key":"type","boot_id":"b1","value":[]}"#,
    )
    .unwrap();
    std::fs::create_dir(at("folder.json")).unwrap();
    std::fs::write(at("newer.json"), r#"{"format":2}"#).unwrap();
    std::fs::rename(at("moved.json"), at("renamed.json")).unwrap();
    std::fs::write(at(".tmp-7-good.json"), "left by a crash").unwrap();

    let journal = Journal::<String>::open(dir.path(), "b1").unwrap();
    let keys: Vec<_> = journal.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["good"]);
    let sentences: Vec<_> = journal.quarantined().iter().map(|q| &q.sentence).collect();
    for (name, cause) in [
        ("half.json", "is not a journal record"),
        ("empty.json", "is not a journal record"),
        ("type.json", "can't be decoded"),
        ("folder.json", "can't be read"),
        ("newer.json", "has format 2"),
        ("renamed.json", "says that it is the record of \"moved\""),
    ] {
        let told = |sentence: &&&String| sentence.contains(name) && sentence.contains(cause);
        assert_eq!(
            sentences.iter().filter(told).count(),
            1,
            "{name}: {sentences:#?}"
        );
        assert!(at("corrupt").join(name).exists());
    }
    assert_eq!(sentences.len(), 6);
    assert!(!at(".tmp-7-good.json").exists());
    drop(journal);

    // A second damaged file of the same name does not overwrite the first.
    std::fs::write(at("half.json"), "again").unwrap();
    let journal = Journal::<String>::open(dir.path(), "b1").unwrap();
    let aside = |journal: &Journal<String>| -> Vec<_> {
        journal
            .quarantined()
            .iter()
            .map(|q| q.path.clone())
            .collect()
    };
    // What was set aside before is as unknown as it was.
    let seven = aside(&journal);
    assert_eq!(seven.len(), 7);
    assert_eq!(seven[6], at("corrupt").join("half.json.1"));
    drop(journal);

    // Until somebody takes it away.
    let journal = Journal::<String>::open(dir.path(), "b1").unwrap();
    let sentence = &journal.quarantined()[0].sentence;
    assert!(
        sentence.contains("empty.json: look at it, then delete it"),
        "{sentence}"
    );
    for path in aside(&journal) {
        let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
    }
    drop(journal);
    let journal = Journal::<String>::open(dir.path(), "b1").unwrap();
    assert!(journal.quarantined().is_empty());
    assert_eq!(journal.get("good").unwrap().value, "x");
}

#[test]
fn what_cannot_be_read_now_is_not_taken_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("a.json");
    std::os::unix::fs::symlink("a.json", &record).unwrap();
    let why = Journal::<u8>::open(dir.path(), "b1")
        .unwrap_err()
        .to_string();
    assert!(
        why.contains("can't read") && why.contains("a.json"),
        "{why}"
    );
    assert!(record.is_symlink());
}

#[test]
fn only_one_process_has_it_and_only_its_user_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("j");
    let journal = Journal::<u8>::open(&path, "b1").unwrap();
    journal.insert("k", 1).unwrap();
    let second = Journal::<u8>::open(&path, "b1");
    assert!(matches!(second, Err(Error::Busy { .. })));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(&path.join("k.json"))), (0o700, 0o600));
    assert!(matches!(journal.insert("", 1), Err(Error::Key { .. })));
}

#[test]
fn a_failed_write_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::<u8>::open(dir.path().join("j"), "b1").unwrap();
    journal.insert("k", 1).unwrap();
    // Root ignores permissions, so the write fails for want of the directory.
    std::fs::rename(dir.path().join("j"), dir.path().join("elsewhere")).unwrap();
    let error = journal.update("k", 2).unwrap_err();
    assert!(matches!(error, Error::Io { .. }));
    assert!(error.to_string().contains("k.json"), "{error}");
    assert_eq!(journal.get("k").unwrap().value, 1);
}

#[test]
fn many_threads_write_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::<usize>::open(dir.path(), "b1").unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let journal = &journal;
            scope.spawn(move || {
                for round in 0..10 {
                    journal.insert(&format!("{thread}-{round}"), round).unwrap();
                    // All threads fight for one key, too; the last one in memory is the last one on disk.
                    let _ = journal.insert("shared", 0);
                    journal.update("shared", thread * 100 + round).unwrap();
                }
            });
        }
    });
    let last = journal.get("shared").unwrap().value;
    drop(journal);
    let journal = Journal::<usize>::open(dir.path(), "b1").unwrap();
    assert_eq!(journal.len(), 81);
    assert_eq!(journal.get("shared").unwrap().value, last);
}
