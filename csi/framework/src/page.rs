//! Lists in pages: the token is the last key that was returned, so it stays valid whatever comes and goes.

use uuid::Uuid;

use crate::error::{Error, Result};

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The page behind `token` of `all`, which is sorted by its keys; `max` = 0 is no limit.
    pub(crate) fn of(
        all: impl Iterator<Item = (Uuid, T)>,
        max: usize,
        token: Option<&str>,
    ) -> Result<Self> {
        let after = match token.filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => Some(Uuid::try_parse(token).map_err(|_| Error::Token {
                token: token.to_owned(),
            })?),
        };
        let max = if max == 0 { usize::MAX } else { max };
        let mut rest = all
            .skip_while(|(key, _)| after.is_some_and(|after| *key <= after))
            .peekable();
        let mut items = Vec::new();
        let mut last = None;
        while items.len() < max
            && let Some((key, item)) = rest.next()
        {
            last = Some(key);
            items.push(item);
        }
        let next = rest.peek().and(last).map(|key| key.to_string());
        Ok(Self { items, next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_join_to_the_whole_though_entries_go() {
        let key = Uuid::from_u128;
        let all = |gone: u128| {
            (1..=5)
                .filter(move |n| *n != gone)
                .map(move |n| (key(n), n))
        };
        let one = Page::of(all(0), 2, None).unwrap();
        assert_eq!(one.items, [1, 2]);
        let two = Page::of(all(2), 2, one.next.as_deref()).unwrap();
        assert_eq!(two.items, [3, 4]);
        let three = Page::of(all(0), 2, two.next.as_deref()).unwrap();
        assert_eq!((three.items, three.next), (vec![5], None));
        assert_eq!(Page::of(all(0), 0, None).unwrap().items.len(), 5);
        assert!(matches!(
            Page::of(all(0), 2, Some("7")),
            Err(Error::Token { .. })
        ));
    }
}
