//! What this node is in the network: decided once, at the start.

use std::path::Path;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use api::pairing::{PAIRING_FILE, Pairing, Side};

use crate::config::{Mode, Run};
use crate::pairing;
use crate::rounds::Pace;

/// A mode that is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// A plain node.
    Default,
    /// A host whose ports are on its DPU.
    Host,
    /// A DPU.
    Dpu,
}

/// Decides by the flags and, with `auto`, by the pair that this node is in; the log says why.
///
/// # Errors
/// The pair is asked for and cannot be read.
pub(crate) fn decide(args: &Run) -> anyhow::Result<Part> {
    let (part, why) = match args.mode {
        Mode::Default => (Part::Default, "--mode says so".to_owned()),
        Mode::Host => (Part::Host, "--mode says so".to_owned()),
        Mode::Dpu => (Part::Dpu, "--mode says so".to_owned()),
        Mode::Auto => {
            let directory = &args.channel_identity_dir;
            let pair = pairing::read(directory).map_err(anyhow::Error::msg)?;
            let node = &args.node_name;
            (of(pair.as_ref(), node), why(pair.as_ref(), node, directory))
        }
    };
    info!("cni-node serves this node as {}: {why}", part.words());
    Ok(part)
}

/// Why a node is what [`of`] says, for people.
fn why(pair: Option<&Pairing>, node: &str, directory: &Path) -> String {
    let file = directory.join(PAIRING_FILE);
    let file = file.display();
    let Some(pair) = pair else {
        return format!("there is no {file}, so no Dpu object names it");
    };
    let (dpu, host) = (&pair.dpu, &pair.host);
    match pair.side(node) {
        Some(Side::Host) => format!("{file} says that its DPU is {dpu}"),
        Some(Side::Dpu) => format!("{file} says that its host is {host}"),
        None => format!("{file} is of DPU {dpu} and host {host}, and it is neither"),
    }
}

fn of(pair: Option<&Pairing>, node: &str) -> Part {
    match pair.and_then(|pair| pair.side(node)) {
        None => Part::Default,
        Some(Side::Host) => Part::Host,
        Some(Side::Dpu) => Part::Dpu,
    }
}

/// Complains, for as long as that is so, that the pair says another part than was decided. A host or a DPU that is in no pair
/// remains one: its pair may be made anew.
pub(crate) async fn compare(
    part: Part,
    node: String,
    pair: watch::Receiver<Option<Pairing>>,
    mut pace: Pace,
) {
    pace.wake_on(pair.clone());
    loop {
        let started = Instant::now();
        let complaint = contradiction(part, pair.borrow().as_ref(), &node);
        pace.finish(started, &Vec::from_iter(complaint));
        if pace.next().await.is_none() {
            return;
        }
    }
}

fn contradiction(part: Part, pair: Option<&Pairing>, node: &str) -> Option<String> {
    let now = of(pair, node);
    (now != part && now != Part::Default).then(|| {
        format!(
            "this node was started as {}, and a Dpu says now that it is {}: restart cni-node on this node",
            part.words(),
            now.words()
        )
    })
}

impl Part {
    fn words(self) -> &'static str {
        match self {
            Self::Default => "a plain node",
            Self::Host => "a host",
            Self::Dpu => "a DPU",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pair_decides_and_another_one_is_a_complaint() {
        let text = r#"{"dpu":"d1","host":"h1","address":"198.18.0.12","port":9478,"controller":null,"uid":"u"}"#;
        let pair: Pairing = text.parse().unwrap();
        assert_eq!(of(Some(&pair), "h1"), Part::Host);
        assert_eq!(of(Some(&pair), "d1"), Part::Dpu);
        assert_eq!(of(Some(&pair), "m"), Part::Default);
        assert_eq!(of(None, "h1"), Part::Default);
        assert_eq!(contradiction(Part::Host, Some(&pair), "h1"), None);
        assert_eq!(contradiction(Part::Host, None, "h1"), None);
        let why = |pair, node| why(pair, node, Path::new("/channel"));
        let sentences = [
            (
                Some(&pair),
                "h1",
                "/channel/pairing.json says that its DPU is d1",
            ),
            (
                Some(&pair),
                "d1",
                "/channel/pairing.json says that its host is h1",
            ),
            (
                Some(&pair),
                "m",
                "/channel/pairing.json is of DPU d1 and host h1, and it is neither",
            ),
            (
                None,
                "m",
                "there is no /channel/pairing.json, so no Dpu object names it",
            ),
        ];
        for (pair, node, sentence) in sentences {
            assert_eq!(why(pair, node), sentence);
        }
        let sentence = contradiction(Part::Default, Some(&pair), "h1").unwrap();
        assert!(sentence.contains("restart cni-node"), "{sentence}");
    }
}
