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

/// Processor time of all processes of these names so far. One that ends takes its time along.
pub(super) fn cpu_of(names: &[&str]) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for entry in fs::read_dir("/proc").context("cannot read /proc")? {
        let path = entry?.path();
        // Any of them may end meanwhile.
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        let pid = path.file_name().and_then(|pid| pid.to_str()?.parse().ok());
        if let Some(pid) = pid
            && names.contains(&name.trim_end())
        {
            sum += cpu(pid).unwrap_or_default();
        }
    }
    Ok(sum)
}

/// Of the processors' time since `before`, the part in which they had nothing to do; and what to give as `before` next time.
///
/// # Errors
/// /proc/stat is not as proc(5) has it.
pub(super) fn idle(before: Ticks) -> Result<(f64, Ticks)> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "));
    let fields = line.context("/proc/stat has no line cpu")?;
    let fields: Vec<u64> = fields
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    // user nice system idle iowait irq softirq steal; guest time is in user.
    let now = Ticks {
        idle: fields.iter().skip(3).take(2).sum(),
        all: fields.iter().take(8).sum(),
    };
    let whole = now.all.saturating_sub(before.all).max(1);
    let idle = now.idle.saturating_sub(before.idle);
    #[allow(clippy::cast_precision_loss, reason = "a ratio")]
    Ok((idle as f64 / whole as f64, now))
}

/// What all processors have counted since the machine's start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ticks {
    idle: u64,
    all: u64,
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_memory_and_has_worked() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let memory = super::memory(pid).unwrap();
        assert!(memory.resident > 0.5 && memory.peak >= memory.resident);
        assert!(super::cpu(pid).unwrap().as_nanos() > 0);
        let name = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(super::cpu_of(&[name.trim_end()]).unwrap() > std::time::Duration::ZERO);
        let (idle, _) = super::idle(super::Ticks::default()).unwrap();
        assert!((0.0..=1.0).contains(&idle));
    }
}
