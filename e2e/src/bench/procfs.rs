//! Memory and processor time of a process, from /proc.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Resident memory, in MiB.
pub(super) struct Memory {
    /// Now.
    pub(super) resident: f64,
    /// The most it ever was.
    pub(super) peak: f64,
}

/// Resident memory of a process.
///
/// # Errors
/// It is gone.
pub(super) fn memory(pid: i32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let field = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.split_whitespace().next());
        let kib: f64 = kib
            .with_context(|| format!("{path} has no {name}"))?
            .parse()?;
        Ok(kib / 1024.0)
    };
    Ok(Memory {
        resident: field("VmRSS:")?,
        peak: field("VmHWM:")?,
    })
}

/// Processor time of all threads of a process so far, to the nanosecond.
///
/// # Errors
/// It is gone.
pub(super) fn cpu(pid: i32) -> Result<Duration> {
    let path = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&path).with_context(|| format!("cannot read {path}"))? {
        // A thread may end between the two reads.
        let stat = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += stat
            .split(' ')
            .next()
            .and_then(|n| n.parse::<u64>().ok())
            .unwrap_or_default();
    }
    Ok(Duration::from_nanos(sum))
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_and_has_worked() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let memory = super::memory(pid).unwrap();
        assert!(memory.resident > 0.5 && memory.peak >= memory.resident);
        assert!(super::cpu(pid).unwrap().as_nanos() > 0);
    }
}
