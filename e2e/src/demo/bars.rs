//! Times of stages as bars, on one line.

use std::time::Duration;

/// Characters of the longest bar.
const WIDTH: f64 = 30.0;

/// `stage ███ 3.1 │ …`: each with its milliseconds.
pub(super) fn line<S: AsRef<str>>(stages: &[(S, Duration)]) -> String {
    let longest = stages
        .iter()
        .map(|(_, time)| milliseconds(*time))
        .fold(f64::EPSILON, f64::max);
    let bar = |(stage, time): &(S, Duration)| {
        let ms = milliseconds(*time);
        // From 0 to WIDTH.
        let length = (ms / longest * WIDTH).round() as usize;
        format!(
            "{} {}{ms:.1}",
            stage.as_ref(),
            if length == 0 {
                String::new()
            } else {
                "█".repeat(length) + " "
            }
        )
    };
    stages.iter().map(bar).collect::<Vec<_>>().join(" │ ")
}

pub(super) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op_line::OpLine;

    #[test]
    fn a_log_line_becomes_bars() {
        let text = r#"INFO done in 24.1 ms op="ADD" pod="demo/client" network="outboard" stages=wait_row=0.0ms netns=5.0ms ovs=2.5ms ovn_installed=20.0ms other=1"#;
        let add = OpLine::parse(text).unwrap();
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        assert_eq!(
            add.stages,
            [
                ("wait_row", ms(0.0)),
                ("netns", ms(5.0)),
                ("ovs", ms(2.5)),
                ("ovn_installed", ms(20.0))
            ]
        );
        let bars = line(&add.stages);
        assert!(
            bars.starts_with("wait_row 0.0 │ netns ████████ 5.0 │"),
            "{bars}"
        );
        assert_eq!(format!("{:.1}", milliseconds(add.whole)), "24.1");
    }
}
