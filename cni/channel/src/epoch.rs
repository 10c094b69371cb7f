//! What a side lost its memory by: a reboot, or the end of its process.

use crate::proto::Epoch;

/// Of this process, within the boot of that id: it began when /proc/self/stat says so (10 ms steps), 0 where that can't be read.
#[must_use]
pub fn of_this_process(boot_id: &str) -> Epoch {
    Epoch {
        boot_id: boot_id.trim().to_owned(),
        process: began().unwrap_or_default(),
    }
}

/// For people, and to compare: `<boot id>/<process>`.
#[must_use]
pub fn text(epoch: &Epoch) -> String {
    format!("{}/{}", epoch.boot_id, epoch.process)
}

/// Microseconds since the boot.
fn began() -> Option<u64> {
    use nix::unistd::{SysconfVar, sysconf};
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command, in parentheses, may itself contain blanks and parentheses; proc(5) counts from 1, and starttime is 22.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: u64 = fields.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    ticks.checked_mul(1_000_000)?.checked_div(second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_began_after_the_boot() {
        let epoch = of_this_process("b\n");
        assert_eq!(epoch.boot_id, "b");
        assert!(epoch.process > 0);
        assert_eq!(text(&epoch), format!("b/{}", epoch.process));
        assert_eq!(epoch, of_this_process("b"));
    }
}
