//! The bridge as a process on a real engine (this test program run as it), with real daemons, FUSE, loop devices, and QEMU machines.
#![allow(clippy::unwrap_used, reason = "a test")]

mod beside;
mod devices;
mod faults;
mod guest;
mod objects;
mod vm;
mod world;

use std::process::ExitCode;
use std::time::Instant;

type Test = (&'static str, fn());

const TESTS: [Test; 21] = [
    (
        "objects::equal_is_the_same_and_other_is_named",
        objects::equal_is_the_same_and_other_is_named,
    ),
    (
        "objects::bad_input_has_its_code_and_sentence",
        objects::bad_input_has_its_code_and_sentence,
    ),
    ("objects::lists_come_in_pages", objects::lists_come_in_pages),
    (
        "objects::tcp_needs_a_certificate",
        objects::tcp_needs_a_certificate,
    ),
    (
        "devices::block_device_keeps_its_bytes",
        devices::block_device_keeps_its_bytes,
    ),
    (
        "devices::size_grows_under_a_writer",
        devices::size_grows_under_a_writer,
    ),
    ("devices::nbd_over_tls", devices::nbd_over_tls),
    (
        "devices::a_renewed_certificate_is_shown",
        devices::a_renewed_certificate_is_shown,
    ),
    ("devices::limits_hold_at_once", devices::limits_hold_at_once),
    (
        "devices::vhost_user_and_same_node",
        devices::vhost_user_and_same_node,
    ),
    (
        "devices::vhost_user_grows_before_a_guest_came",
        devices::vhost_user_grows_before_a_guest_came,
    ),
    (
        "beside::only_the_group_connects_whatever_dies",
        beside::only_the_group_connects_whatever_dies,
    ),
    (
        "beside::a_guest_uses_the_socket_in_the_devices_place",
        beside::a_guest_uses_the_socket_in_the_devices_place,
    ),
    (
        "faults::target_is_killed_under_a_writer",
        faults::target_is_killed_under_a_writer,
    ),
    (
        "faults::contained_bridge_is_killed_under_a_writer",
        faults::contained_bridge_is_killed_under_a_writer,
    ),
    (
        "faults::daemon_is_killed_and_healed",
        faults::daemon_is_killed_and_healed,
    ),
    (
        "faults::bridge_dies_between_any_two_steps",
        faults::bridge_dies_between_any_two_steps,
    ),
    ("faults::fifty_at_once", faults::fifty_at_once),
    (
        "vm::nvme_is_plugged_and_taken_away",
        vm::nvme_is_plugged_and_taken_away,
    ),
    (
        "vm::bridge_dies_while_plugging",
        vm::bridge_dies_while_plugging,
    ),
    (
        "guest::disks_come_grow_and_go_while_it_writes",
        guest::disks_come_grow_and_go_while_it_writes,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if matches!(args.first().map(String::as_str), Some("run" | "launch")) {
        return engine::main();
    }
    if args.iter().any(|arg| arg == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<_> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    for (name, test) in TESTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str())) {
            let begun = Instant::now();
            test();
            println!(
                "test {name} ... ok ({:.1} s)",
                begun.elapsed().as_secs_f32()
            );
        }
    }
    ExitCode::SUCCESS
}

/// Runs a test's future.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(2)
        .build();
    runtime.unwrap().block_on(test);
}
