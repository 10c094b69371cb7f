//! The line that cni-node logs when an operation is done: `done in <ms> ms … stages=<stage>=<ms>ms …`.

use std::time::Duration;

/// What the line says.
#[derive(Debug, PartialEq)]
pub(crate) struct OpLine<'a> {
    /// From the request to its answer.
    pub(crate) whole: Duration,
    /// In the order they began; they may overlap. None for an operation without stages.
    pub(crate) stages: Vec<(&'a str, Duration)>,
}

impl<'a> OpLine<'a> {
    /// Reads it; nothing if the line is another one.
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        let (_, rest) = line.split_once("done in ")?;
        let (whole, _) = rest.split_once(" ms")?;
        let tail = line.split_once("stages=").map_or("", |(_, tail)| tail);
        let stages = tail.split_whitespace().map_while(|word| {
            let (stage, text) = word.trim_matches('"').split_once('=')?;
            Some((stage, milliseconds(text.strip_suffix("ms")?)?))
        });
        Some(Self {
            whole: milliseconds(whole)?,
            stages: stages.collect(),
        })
    }
}

fn milliseconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse::<f64>().ok()? / 1e3).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_of_a_line_are_read() {
        let line =
            r#"INFO done in 24.1 ms op="ADD" pod="a/b" stages=wait_row=0.0ms ovs=2.5ms other=1"#;
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1e3);
        let expected = OpLine {
            whole: ms(24.1),
            stages: vec![("wait_row", ms(0.0)), ("ovs", ms(2.5))],
        };
        assert_eq!(OpLine::parse(line), Some(expected));
        assert_eq!(OpLine::parse("nothing"), None);
    }
}
