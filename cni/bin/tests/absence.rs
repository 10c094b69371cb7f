//! cni-node is away, comes back, breaks off, or takes too long.

mod fake;

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use fake::{Home, Reaction, attachment, call, nothing, reply};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use rstest::rstest;
use serde_json::json;

/// The 2 s of patience, with room below for its jitter and above for a busy machine.
fn is_about_two_seconds(took: Duration) -> bool {
    (Duration::from_millis(1800)..Duration::from_secs(10)).contains(&took)
}

#[test]
fn an_absent_daemon_is_reported_after_two_seconds() {
    let home = Home::new();
    let socket = home.socket().display().to_string();
    let all = [
        ("ADD", 11),
        ("DEL", 11),
        ("CHECK", 11),
        ("GC", 11),
        ("STATUS", 50),
    ];
    std::thread::scope(|scope| {
        for (command, code) in all {
            let (home, socket) = (&home, &socket);
            scope.spawn(move || {
                let called = call(&attachment(command), home.config("1.1.0", &json!({})));
                let error = called.error(
                    code,
                    "the socket does not exist",
                    "Check that cni-node runs",
                );
                assert!(error["msg"].as_str().unwrap().contains(socket), "{error}");
                assert!(is_about_two_seconds(called.took), "{:?}", called.took);
            });
        }
    });
}

#[test]
fn a_socket_that_a_dead_daemon_left_is_as_absent() {
    let home = Home::new();
    drop(UnixListener::bind(home.socket()).unwrap());
    let called = call(&attachment("DEL"), home.config("0.3.1", &json!({})));
    let error = called.error(11, "nobody listens", "Check that cni-node runs");
    assert_eq!(error["cniVersion"], "0.3.1");
    assert!(is_about_two_seconds(called.took), "{:?}", called.took);
}

#[test]
fn something_that_is_no_socket_is_refused_at_once() {
    let home = Home::new();
    std::fs::write(home.path().join("plain"), "").unwrap();
    let config = home.config("1.1.0", &json!({"socket": home.path().join("plain/x")}));
    let called = call(&attachment("ADD"), config);
    called.error(5, "can't be used", "run as root");
    assert!(
        called.took < Duration::from_millis(1500),
        "{:?}",
        called.took
    );
}

#[rstest]
fn a_restarting_daemon_is_not_noticed(
    #[values("ADD", "DEL", "CHECK", "GC", "STATUS")] command: &str,
) {
    let home = Home::new();
    let result = if command == "ADD" {
        json!({"cniVersion": "1.1.0"})
    } else {
        json!(null)
    };
    let old = UnixListener::bind(home.socket()).unwrap();
    let config = home.config("1.1.0", &json!({}));
    let env = attachment(command);
    let called = std::thread::scope(|scope| {
        let called = scope.spawn(|| call(&env, &config));
        // The old one accepts, is killed before it reads, and its socket vanishes; the new one serves.
        drop(old.accept().unwrap());
        std::fs::remove_file(home.socket()).unwrap();
        drop(old);
        home.serve(vec![
            Reaction::Reset,
            Reaction::Reset,
            reply(&json!({"result": result})),
        ]);
        called.join().unwrap()
    });
    assert_eq!(called.ok(), result);
}

#[rstest]
fn a_call_that_may_have_begun_is_repeated_unless_it_is_an_add(
    #[values("DEL", "CHECK", "GC", "STATUS")] command: &str,
) {
    let home = Home::new();
    let requests = home.serve(vec![Reaction::Silence, Reaction::Silence, nothing()]);
    call(&attachment(command), home.config("1.1.0", &json!({}))).ok();
    let all: Vec<_> = requests.iter().collect();
    assert_eq!(all.len(), 3);
    assert!(
        all[2].deadline_ms < all[0].deadline_ms,
        "the budget is used up by every attempt"
    );
}

#[test]
fn an_add_that_may_have_begun_is_not_repeated() {
    let home = Home::new();
    let requests = home.serve(vec![Reaction::Silence, reply(&json!({"result": {}}))]);
    let called = call(&attachment("ADD"), home.config("1.0.0", &json!({})));
    called.error(11, "ended before it answered ADD", "read the log");
    assert_eq!(requests.try_iter().count(), 1);
}

#[rstest]
#[case("ADD", 11)]
#[case("DEL", 11)]
#[case("STATUS", 50)]
fn half_an_answer_is_no_answer(#[case] command: &str, #[case] code: u32) {
    let home = Home::new();
    let half = br#"{"result":{"cniVersion":"1.1.0","ips":[{"addr"#.to_vec();
    let requests = home.serve(vec![Reaction::Bytes(half), nothing()]);
    let called = call(&attachment(command), home.config("1.1.0", &json!({})));
    called.error(code, "in the middle of its answer", "try again");
    assert_eq!(requests.try_iter().count(), 1);
}

#[rstest]
#[case("ADD", 11)]
#[case("STATUS", 50)]
fn the_deadline_holds_whatever_the_daemon_does(#[case] command: &str, #[case] code: u32) {
    let home = Home::new();
    let requests = home.serve(vec![Reaction::Never]);
    let config = home.config("1.1.0", &json!({"timeoutSeconds": 1}));
    let called = call(&attachment(command), config);
    called.error(code, "did not answer", "\"timeoutSeconds\"");
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&called.took));
    let told = requests.recv().unwrap().deadline_ms;
    assert!((1..=900).contains(&told), "{told}");
}

#[test]
fn the_deadline_also_ends_the_retries() {
    let home = Home::new();
    let config = home.config("1.1.0", &json!({"timeoutSeconds": 1}));
    let called = call(&attachment("ADD"), config);
    called.error(11, "does not", "");
    assert!(
        called.took < Duration::from_millis(1900),
        "{:?}",
        called.took
    );
}

#[test]
fn a_daemon_that_never_accepts_is_bounded_too() {
    let home = Home::new();
    let listener = UnixListener::bind(home.socket()).unwrap();
    // Fill its queue, so that even connecting would block for ever.
    let mut waiting = Vec::new();
    while let Ok(connected) = connect_at_once(&home.socket()) {
        waiting.push(connected);
    }
    let config = home.config("1.1.0", &json!({"timeoutSeconds": 1}));
    let called = call(&attachment("ADD"), config);
    called.error(11, "did not answer", "");
    assert!(called.took < Duration::from_secs(5), "{:?}", called.took);
    drop(listener);
}

fn connect_at_once(path: &Path) -> nix::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Unix, SockType::Stream);
    let fd = socket(family, kind, SockFlag::SOCK_NONBLOCK, None)?;
    connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd)
}
