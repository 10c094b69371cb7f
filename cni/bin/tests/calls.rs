//! Every verb in every version, what reaches cni-node, and every bad call with its code and sentence.

mod fake;

use fake::{Home, Reaction, attachment, call, nothing, reply};
use rstest::rstest;
use serde_json::{Value, json};

const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The first version that has the verb.
fn since(command: &str) -> &'static str {
    match command {
        "CHECK" => "0.4.0",
        "GC" | "STATUS" => "1.1.0",
        _ => "0.3.0",
    }
}

#[rstest]
fn every_verb_in_every_version(
    #[values("ADD", "DEL", "CHECK", "GC", "STATUS")] command: &str,
    #[values(0, 1, 2, 3, 4)] version: usize,
) {
    let version = VERSIONS[version];
    let home = Home::new();
    let config = home.config(
        version,
        &json!({"prevResult": {"cniVersion": version, "ips": []}}),
    );
    if version < since(command) {
        let error = call(&attachment(command), config).error(1, command, since(command));
        assert_eq!(error["cniVersion"], version);
        return;
    }
    let result = json!({"cniVersion": version, "ips": [{"address": "10.244.0.5/16"}], "x": 1});
    let requests = home.serve(vec![match command {
        "ADD" => reply(&json!({"result": result})),
        _ => nothing(),
    }]);
    let called = call(&attachment(command), &config);
    let expected = if command == "ADD" {
        result
    } else {
        Value::Null
    };
    assert_eq!(called.ok(), expected);
    let request = requests.recv().unwrap();
    assert_eq!(request.command.as_str(), command);
    assert_eq!(request.config, config);
    // The default of 110 s, less the second that this side keeps for itself.
    assert!(
        (100_000..=109_000).contains(&request.deadline_ms),
        "{}",
        request.deadline_ms
    );
}

#[test]
fn version_needs_nothing_but_its_verb() {
    for config in ["", "{", r#"{"cniVersion":"9.9.9"}"#] {
        assert_eq!(
            call(&[("CNI_COMMAND", "VERSION")], config).ok(),
            json!({"cniVersion": "1.1.0", "supportedVersions": VERSIONS})
        );
    }
}

#[test]
fn only_cni_variables_leave_the_host_and_the_configuration_is_untouched() {
    let home = Home::new();
    let requests = home.serve(vec![nothing()]);
    let mut env = attachment("DEL");
    env.extend([
        ("PATH", "/bin"),
        ("AWS_SECRET", "s"),
        ("NOT_CNI_X", "n"),
        ("CNI_EMPTY", ""),
        ("CNI_OTHER", "o"),
        ("TRACEPARENT", "00-1"),
    ]);
    // Blanks, an unknown key, a number that no double holds, and a chained result of another shape.
    let config = format!(
        r#" {{"cniVersion":"1.0.0", "name":"n","type":"outboard","socket":{:?},"n":12345678901234567890123,
            "prevResult":{{"ips":"spoilt"}} }} "#,
        home.socket()
    );
    call(&env, &config).ok();
    let request = requests.recv().unwrap();
    assert_eq!(request.config, config);
    let names: Vec<_> = request.env.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "CNI_ARGS",
            "CNI_COMMAND",
            "CNI_CONTAINERID",
            "CNI_IFNAME",
            "CNI_NETNS",
            "CNI_OTHER",
            "CNI_PATH"
        ]
    );
    assert_eq!(
        request.var("CNI_ARGS"),
        Some("IgnoreUnknown=1;K8S_POD_NAME=web")
    );
}

#[test]
fn an_error_of_the_daemon_is_printed_as_it_is() {
    let home = Home::new();
    let error = json!({
        "cniVersion": "0.4.0", "code": 11, "msg": "pod a/b has no address yet.", "details": "Wait for cni-controller.",
    });
    home.serve(vec![reply(&json!({"error": error}))]);
    let called = call(&attachment("ADD"), home.config("0.4.0", &json!({})));
    assert_eq!(called.error(11, "a/b", "cni-controller"), error);
}

#[rstest]
#[case::no_command(&["CNI_COMMAND"], &[], "CNI_COMMAND is not set", "outboard --help")]
#[case::empty_command(&[], &[("CNI_COMMAND", "")], "CNI_COMMAND is not set", "outboard --help")]
#[case::unknown_command(&[], &[("CNI_COMMAND", "FLY")], "\"FLY\"", "STATUS or VERSION")]
#[case::lower_case(&[], &[("CNI_COMMAND", "add")], "\"add\"", "ADD")]
#[case::no_container(&["CNI_CONTAINERID"], &[], "CNI_CONTAINERID", "must set")]
#[case::empty_container(&[], &[("CNI_CONTAINERID", "")], "CNI_CONTAINERID", "must set")]
#[case::two(&["CNI_NETNS", "CNI_IFNAME"], &[], "CNI_NETNS, CNI_IFNAME", "must set")]
#[case::bad_container(&[], &[("CNI_CONTAINERID", "-x")], "CNI_CONTAINERID is \"-x\"", "letters")]
#[case::path_as_container(&[], &[("CNI_CONTAINERID", "../x")], "\"../x\"", "letters")]
#[case::long_ifname(&[], &[("CNI_IFNAME", "sixteen-letters-")], "CNI_IFNAME is", "15 bytes")]
#[case::blank_ifname(&[], &[("CNI_IFNAME", "e 0")], "\"e 0\"", "15 bytes")]
#[case::dots(&[], &[("CNI_IFNAME", "..")], "\"..\"", "15 bytes")]
fn a_bad_environment_is_code_4(
    #[case] without: &[&str],
    #[case] with: &[(&str, &str)],
    #[case] cause: &str,
    #[case] remedy: &str,
) {
    let home = Home::new();
    let mut env = attachment("ADD");
    env.retain(|(name, _)| !without.contains(name));
    env.extend(with);
    let error = call(&env, home.config("0.4.0", &json!({}))).error(4, cause, remedy);
    // Without a verb nothing is read, so the version is our own.
    let expected = if cause.contains("CNI_COMMAND") || with.iter().any(|(k, _)| *k == "CNI_COMMAND")
    {
        "1.1.0"
    } else {
        "0.4.0"
    };
    assert_eq!(error["cniVersion"], expected);
}

#[test]
fn a_variable_that_is_not_text_is_code_4() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = std::process::Command::new(fake::PROGRAM);
    let bad = std::ffi::OsStr::from_bytes(b"\xff");
    let output = command
        .env("CNI_COMMAND", "ADD")
        .env("CNI_NETNS", bad)
        .output()
        .unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 4);
    assert!(error["msg"].as_str().unwrap().contains("CNI_NETNS"));
}

#[rstest]
#[case("ADD", &["CNI_PATH", "CNI_ARGS"])]
#[case("DEL", &["CNI_NETNS", "CNI_PATH", "CNI_ARGS"])]
#[case("CHECK", &["CNI_PATH", "CNI_ARGS"])]
#[case("GC", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"])]
#[case("STATUS", &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS"])]
fn variables_that_a_verb_does_not_need_may_be_missing(
    #[case] command: &str,
    #[case] without: &[&str],
) {
    let home = Home::new();
    home.serve(vec![reply(
        &json!({"result": if command == "ADD" { json!({}) } else { Value::Null }}),
    )]);
    let mut env = attachment(command);
    env.retain(|(name, _)| !without.contains(name));
    call(&env, home.config("1.1.0", &json!({}))).ok();
}

#[test]
fn gc_needs_the_path_that_the_specification_lists() {
    let mut env = attachment("GC");
    env.retain(|(name, _)| *name != "CNI_PATH");
    call(&env, Home::new().config("1.1.0", &json!({}))).error(
        4,
        "GC came without CNI_PATH",
        "must set",
    );
}

#[rstest]
#[case::empty("", 6, "is not JSON", "Correct")]
#[case::cut("{\"cniVersion\":", 6, "is not JSON", "Correct")]
#[case::text("hello", 6, "is not JSON", "Correct")]
#[case::null("null", 7, "is invalid", "Correct")]
#[case::list("[1]", 7, "", "")]
#[case::no_version(r#"{"name":"n"}"#, 1, "which means 0.1.0", "1.1.0")]
#[case::old(
    r#"{"cniVersion":"0.2.0","name":"n"}"#,
    1,
    "\"0.2.0\"",
    "0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0"
)]
#[case::future(r#"{"cniVersion":"1.2.0","name":"n"}"#, 1, "\"1.2.0\"", "1.1.0")]
#[case::nonsense(r#"{"cniVersion":"banana","name":"n"}"#, 1, "\"banana\"", "1.1.0")]
#[case::no_name(r#"{"cniVersion":"1.0.0"}"#, 7, "has no \"name\"", "letter")]
#[case::bad_name(r#"{"cniVersion":"1.0.0","name":"a/b"}"#, 7, "\"a/b\"", "letter")]
#[case::relative(
    r#"{"cniVersion":"1.0.0","name":"n","socket":"cni.sock"}"#,
    7,
    "network n: \"socket\" is \"cni.sock\"",
    "--socket"
)]
#[case::no_time(
    r#"{"cniVersion":"1.0.0","name":"n","timeoutSeconds":0}"#,
    7,
    "\"timeoutSeconds\" is 0",
    "Correct"
)]
#[case::much_time(
    r#"{"cniVersion":"1.0.0","name":"n","timeoutSeconds":601}"#,
    7,
    "601",
    "Correct"
)]
#[case::words(
    r#"{"cniVersion":"1.0.0","name":"n","timeoutSeconds":"1m"}"#,
    7,
    "is invalid",
    "Correct"
)]
fn a_bad_configuration_has_a_code_and_a_sentence(
    #[case] config: &str,
    #[case] code: u32,
    #[case] cause: &str,
    #[case] remedy: &str,
) {
    call(&attachment("ADD"), config).error(code, cause, remedy);
}

#[test]
fn a_configuration_that_is_not_text_or_too_large_is_refused() {
    call(&attachment("ADD"), b"\xff\xfe").error(6, "not UTF-8", "Correct");
    let home = Home::new();
    let huge = home.config("1.1.0", &json!({"x": "y".repeat(4 << 20)}));
    call(&attachment("ADD"), huge).error(7, "more than 4194304 bytes", "Correct");
    // It fits by itself, but not with its quotes escaped inside a request.
    let quotes = home.config("1.1.0", &json!({"x": "\"".repeat(1 << 20)}));
    let error = call(&attachment("ADD"), quotes).error(7, "too large for cni-node", "Correct");
    assert_eq!(error["cniVersion"], "1.1.0");
}

#[rstest]
#[case::add_without_result("ADD", nothing(), 6, "without a result", "different builds")]
#[case::html("ADD", Reaction::Bytes(b"<html>".to_vec()), 6, "does not answer as cni-node does", "outboard install")]
#[case::other_json("DEL", Reaction::Bytes(b"{\"ok\":1}".to_vec()), 6, "does not answer", "\"socket\"")]
fn a_foreign_answer_is_code_6(
    #[case] command: &str,
    #[case] reaction: Reaction,
    #[case] code: u32,
    #[case] cause: &str,
    #[case] remedy: &str,
) {
    let home = Home::new();
    home.serve(vec![reaction]);
    call(&attachment(command), home.config("1.0.0", &json!({}))).error(code, cause, remedy);
}
