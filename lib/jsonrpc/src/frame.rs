//! Where one message ends and the next begins in a stream of concatenated JSON objects.

use crate::LinkError;

/// Above this size a frame is handed over without being copied.
const COPY_LIMIT: usize = 64 << 10;

/// Cuts a byte stream into JSON texts. Brackets are counted outside of strings, escapes inside of
/// strings are honoured, and no byte is looked at twice.
///
/// It does not check the JSON: that is the parser's work. It refuses what starts with anything but
/// `{` (a peer that speaks another protocol) and what exceeds the limit.
#[derive(Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// First byte that was not handed out.
    start: usize,
    /// First byte that was not looked at.
    scanned: usize,
    depth: u32,
    in_string: bool,
    escaped: bool,
    limit: usize,
}

impl Framer {
    /// A framer for messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Framer {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            limit,
        }
    }

    /// The buffer to append received bytes to. To be used when [`Framer::next_frame`] gave `None`.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.scanned -= self.start;
            self.start = 0;
        }
        &mut self.buffer
    }

    /// The next whole message, `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`LinkError::TooLarge`] and [`LinkError::Malformed`]; the stream is then of no further use.
    pub fn next_frame(&mut self) -> Result<Option<Vec<u8>>, LinkError> {
        if self.depth == 0 {
            self.skip_blanks()?;
        }
        let Some(end) = self.scan() else {
            if self.buffer.len() - self.start > self.limit {
                return Err(LinkError::TooLarge { limit: self.limit });
            }
            return Ok(None);
        };
        if end - self.start > self.limit {
            return Err(LinkError::TooLarge { limit: self.limit });
        }
        Ok(Some(self.cut(end)))
    }

    /// True when no part of a message is waiting for its rest.
    pub fn is_empty(&self) -> bool {
        self.depth == 0
            && self.buffer[self.start..]
                .iter()
                .all(u8::is_ascii_whitespace)
    }

    fn skip_blanks(&mut self) -> Result<(), LinkError> {
        let rest = &self.buffer[self.start..];
        let blanks = rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
        self.start += blanks;
        self.scanned = self.start;
        match rest.get(blanks) {
            None | Some(b'{') => Ok(()),
            Some(byte) => Err(LinkError::Malformed(format!(
                "a message starts with '{}' instead of '{{'",
                byte.escape_ascii()
            ))),
        }
    }

    /// Looks at the bytes that were not looked at; the end of the message if it is among them.
    fn scan(&mut self) -> Option<usize> {
        let mut at = self.scanned;
        while at < self.buffer.len() {
            if self.in_string {
                if self.escaped {
                    self.escaped = false;
                    at += 1;
                    continue;
                }
                let rest = &self.buffer[at..];
                let Some(stop) = rest.iter().position(|&b| b == b'"' || b == b'\\') else {
                    at = self.buffer.len();
                    break;
                };
                self.escaped = rest[stop] == b'\\';
                self.in_string = self.escaped;
                at += stop + 1;
                continue;
            }
            match self.buffer[at] {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.scanned = at + 1;
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        self.scanned = at;
        None
    }

    fn cut(&mut self, end: usize) -> Vec<u8> {
        if self.start == 0 && end >= COPY_LIMIT {
            let rest = self.buffer.split_off(end);
            self.scanned = 0;
            return std::mem::replace(&mut self.buffer, rest);
        }
        let frame = self.buffer[self.start..end].to_vec();
        self.start = end;
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(framer: &mut Framer, bytes: &[u8]) -> Result<Vec<String>, LinkError> {
        framer.buffer().extend_from_slice(bytes);
        let mut found = Vec::new();
        while let Some(frame) = framer.next_frame()? {
            found.push(String::from_utf8(frame).unwrap());
        }
        Ok(found)
    }

    #[test]
    fn messages_in_one_read_are_told_apart() {
        let mut framer = Framer::new(1 << 20);
        let found = feed(&mut framer, b" {\"a\":[{}]}\n{}{\"b\":1").unwrap();
        assert_eq!(found, ["{\"a\":[{}]}", "{}"]);
        assert!(!framer.is_empty());
        assert_eq!(feed(&mut framer, b"}").unwrap(), ["{\"b\":1}"]);
        assert!(framer.is_empty());
    }

    #[test]
    fn brackets_and_quotes_in_strings_do_not_count() {
        let text = r#"{"a":"}]\"{\\","b":"\\\\\""}"#;
        assert_eq!(
            feed(&mut Framer::new(1 << 20), text.as_bytes()).unwrap(),
            [text]
        );
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_whole() {
        let mut framer = Framer::new(10);
        assert!(feed(&mut framer, b"{\"a\":1}").is_ok());
        let error = feed(&mut framer, b"{\"a\":\"0123456789").unwrap_err();
        assert!(matches!(error, LinkError::TooLarge { limit: 10 }));
    }

    #[test]
    fn another_protocol_is_refused() {
        let error = feed(&mut Framer::new(10), b"HTTP/1.1 200").unwrap_err();
        assert!(error.to_string().contains("'H'"), "{error}");
        assert!(feed(&mut Framer::new(10), b"]").is_err());
    }

    #[test]
    fn a_large_message_and_what_follows_come_out_whole() {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(COPY_LIMIT * 2));
        let mut framer = Framer::new(1 << 20);
        let (head, tail) = large.split_at(COPY_LIMIT);
        assert!(feed(&mut framer, head.as_bytes()).unwrap().is_empty());
        let found = feed(&mut framer, format!("{tail}{{}}{{\"c").as_bytes()).unwrap();
        assert_eq!(found, [large.as_str(), "{}"]);
        assert_eq!(feed(&mut framer, b"\":0}").unwrap(), ["{\"c\":0}"]);
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<i32>().prop_map(serde_json::Value::from),
            "[a\"\\\\{}\\[\\]\\n\u{e9}]{0,8}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::hash_map("[a\"\\\\{]{0,3}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_cut_of_any_stream_gives_the_same_messages(
            bodies in proptest::collection::vec(json(), 1..6),
            cuts in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let sent: Vec<String> =
                bodies.iter().map(|b| serde_json::json!({ "m": b }).to_string()).collect();
            let stream = sent.join(" ");
            let mut framer = Framer::new(1 << 20);
            let mut got = Vec::new();
            let mut rest = stream.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (head, tail) = rest.split_at((*cut).min(rest.len()));
                got.extend(feed(&mut framer, head).unwrap());
                rest = tail;
            }
            prop_assert_eq!(got, sent);
            prop_assert!(framer.is_empty());
        }
    }
}
