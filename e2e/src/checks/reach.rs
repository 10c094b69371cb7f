//! How something is asked over the network, from a pod or from a node, and what came back.

use anyhow::{Context as _, Result, ensure};

use crate::checks::{NAMESPACE, Scene};

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(super) enum From<'a> {
    /// A pod of the scene.
    Pod(&'a str),
    /// A host process of a node.
    Node(&'a str),
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) body: String,
    pub(super) ms: f64,
}

/// Printed behind each answer; no body of the scene contains it.
const MARK: &str = "##time=";

impl Scene<'_> {
    /// One HTTP request; more options of curl may be given.
    pub(super) fn fetch(&self, from: From<'_>, url: &str, options: &[&str]) -> Result<Answer> {
        let format = format!("{MARK}%{{time_total}}");
        let base = ["curl", "-sS", "--fail", "-g", "-m", "5", "-w", &format];
        let printed = self.ask(from, &[&base, options, &[url]].concat())?;
        answer(&printed)
    }

    /// As many requests, each on a connection of its own.
    pub(super) fn fetch_often(&self, from: From<'_>, url: &str, times: u8) -> Result<Vec<Answer>> {
        let script = format!(
            "i=0; while [ $i -lt {times} ]; do i=$((i+1)); curl -sS --fail -g -m 5 -w '{MARK}%{{time_total}}\\n' '{url}'; done"
        );
        answers(&self.ask(from, &["sh", "-ec", &script])?)
    }

    /// Runs a command where the question is to come from.
    pub(super) fn ask(&self, from: From<'_>, argv: &[&str]) -> Result<String> {
        match from {
            From::Pod(pod) => self.lab.pod_exec(NAMESPACE, pod, argv),
            From::Node(node) => self.lab.node(node).exec(argv),
        }
    }
}

/// `http://<address>/`, with brackets where they belong.
pub(super) fn url(address: &str) -> String {
    if address.contains(':') {
        format!("http://[{address}]/")
    } else {
        format!("http://{address}/")
    }
}

/// The one answer that curl printed.
pub(super) fn answer(printed: &str) -> Result<Answer> {
    answers(printed)?.pop().context("curl printed nothing")
}

/// Splits `body##time=seconds` as often as it comes.
fn answers(printed: &str) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    let mut rest = printed;
    while let Some((body, tail)) = rest.split_once(MARK) {
        let end = tail
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(tail.len());
        let seconds: f64 = tail[..end]
            .parse()
            .with_context(|| format!("no time in {printed:?}"))?;
        answers.push(Answer {
            body: body.trim().to_owned(),
            ms: seconds * 1e3,
        });
        rest = &tail[end..];
    }
    ensure!(!answers.is_empty(), "curl printed no time: {printed:?}");
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_and_times_are_split() {
        let all = answers("web-1\n##time=0.0015\nweb-2\n##time=0.002").unwrap();
        assert_eq!(
            all.iter().map(|a| a.body.as_str()).collect::<Vec<_>>(),
            ["web-1", "web-2"]
        );
        assert_eq!(all[0].ms, 1.5);
        assert!(answers("curl: nothing").is_err());
    }

    #[test]
    fn an_ipv6_address_is_bracketed() {
        assert_eq!(url("fd00::1"), "http://[fd00::1]/");
        assert_eq!(url("web"), "http://web/");
    }
}
