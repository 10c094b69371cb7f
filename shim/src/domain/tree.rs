//! Where the elements of a document are: ranges of bytes, no copies. Nothing here recurses, whatever the depth of the document.

use std::ops::Range;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::Error;

/// A document and where its nodes are.
pub(super) struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
    root: Id,
}

/// Of a node in its document.
pub(super) type Id = usize;

struct Node {
    kind: Kind,
    /// All of it, tags included.
    span: Range<usize>,
    /// Its start tag; of what is no element, all of it.
    open: Range<usize>,
    parent: Option<Id>,
    children: Vec<Id>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Element,
    /// A comment, a processing instruction, a CDATA section.
    Other,
    Text,
}

/// Of an element: where its name and its value (without quotes) are.
pub(super) struct Attribute {
    pub(super) name: Range<usize>,
    pub(super) value: Range<usize>,
}

/// One change of a text.
pub(super) struct Edit {
    /// What goes; empty: nothing.
    pub(super) at: Range<usize>,
    /// What comes there.
    pub(super) with: String,
}

/// The text with changes that do not overlap.
pub(super) fn apply(text: &str, mut edits: Vec<Edit>) -> String {
    edits.sort_by_key(|edit| (edit.at.start, edit.at.end));
    let mut changed = String::with_capacity(text.len() + 1024);
    let mut at = 0;
    for edit in edits {
        changed.push_str(&text[at..edit.at.start]);
        changed.push_str(&edit.with);
        at = edit.at.end;
    }
    changed.push_str(&text[at..]);
    changed
}

impl<'a> Document<'a> {
    /// A domain.
    pub(super) fn parse(text: &'a str) -> Result<Self, Error> {
        let mut reader = Reader::from_str(text);
        let config = reader.config_mut();
        config.check_comments = true;
        config.allow_dangling_amp = false;
        let mut builder = Builder::default();
        loop {
            let start = position(&reader);
            let event = reader.read_event().map_err(|error| Error::Malformed {
                at: usize::try_from(reader.error_position()).unwrap_or_default(),
                fault: error.to_string(),
            })?;
            let span = start..position(&reader);
            let fault = match event {
                Event::Start(_) => builder.open(span),
                Event::Empty(_) => builder.open(span.clone()).or_else(|| builder.close(&span)),
                Event::End(_) => builder.close(&span),
                Event::Text(_) => builder.leaf(Kind::Text, span, text),
                Event::GeneralRef(_) => builder.leaf(Kind::Text, span, text),
                Event::Comment(_) | Event::PI(_) | Event::CData(_) => {
                    builder.leaf(Kind::Other, span, text)
                }
                Event::Decl(_) => None,
                // Its entities could change what every name and value means.
                Event::DocType(_) => Some("a document type declaration"),
                Event::Eof => break,
            };
            if let Some(fault) = fault {
                let fault = fault.into();
                return Err(Error::Malformed { at: start, fault });
            }
        }
        builder.document(text)
    }

    /// The root.
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// The domain's one element `devices`.
    pub(super) fn devices(&self) -> Result<Id, Error> {
        let fault = match self.name(self.root) {
            "domain" => "it has no devices",
            _ => "its root is not <domain>",
        };
        let devices = self.child(self.root, "devices");
        devices
            .filter(|_| self.name(self.root) == "domain")
            .ok_or(Error::NotADomain { fault })
    }

    /// Its bytes.
    pub(super) fn slice(&self, id: Id) -> &'a str {
        &self.text[self.nodes[id].span.clone()]
    }

    /// Where it is.
    pub(super) fn span(&self, id: Id) -> Range<usize> {
        self.nodes[id].span.clone()
    }

    /// Where its start tag is.
    pub(super) fn open(&self, id: Id) -> Range<usize> {
        self.nodes[id].open.clone()
    }

    /// Written as `<name/>`.
    pub(super) fn is_empty_tag(&self, id: Id) -> bool {
        self.nodes[id].open == self.nodes[id].span
    }

    /// Its name, with the prefix if it has one.
    pub(super) fn name(&self, id: Id) -> &'a str {
        let tag = &self.text[self.nodes[id].open.clone()];
        let name = tag.trim_start_matches('<');
        let end = name.find(|c: char| c.is_ascii_whitespace() || c == '/' || c == '>');
        &name[..end.unwrap_or(name.len())]
    }

    /// Its elements.
    pub(super) fn elements(&self, id: Id) -> impl Iterator<Item = Id> {
        let children = self.nodes[id].children.iter().copied();
        children.filter(|child| self.nodes[*child].kind == Kind::Element)
    }

    /// Its elements of a name.
    pub(super) fn named<'n>(&'n self, id: Id, name: &'n str) -> impl Iterator<Item = Id> + 'n {
        self.elements(id)
            .filter(move |child| self.name(*child) == name)
    }

    /// Its first element of a name.
    pub(super) fn child(&self, id: Id, name: &str) -> Option<Id> {
        self.named(id, name).next()
    }

    /// Its children but blank text: elements, comments and the like, text.
    pub(super) fn content(&self, id: Id) -> impl Iterator<Item = Id> {
        let children = self.nodes[id].children.iter().copied();
        children.filter(|child| {
            self.nodes[*child].kind != Kind::Text || !self.slice(*child).trim().is_empty()
        })
    }

    /// Whether it is an element, with this name.
    pub(super) fn is(&self, id: Id, names: &[&str]) -> bool {
        self.nodes[id].kind == Kind::Element && names.contains(&self.name(id))
    }

    /// The blank text right before it, none: something else is there.
    pub(super) fn blank_before(&self, id: Id) -> Option<&'a str> {
        let siblings = &self.nodes[self.nodes[id].parent?].children;
        let place = siblings.iter().position(|sibling| *sibling == id)?;
        let before = *siblings.get(place.checked_sub(1)?)?;
        let text = self.slice(before);
        (self.nodes[before].kind == Kind::Text && text.trim().is_empty()).then_some(text)
    }

    /// Its attributes, in their order.
    pub(super) fn attributes(&self, id: Id) -> Result<Vec<Attribute>, Error> {
        let open = self.open(id);
        let mut at = open.start + 1 + self.name(id).len();
        let malformed = |at| Error::Malformed {
            at,
            fault: "an attribute is not name=\"value\"".into(),
        };
        let skip = |at: usize| {
            let rest = &self.text[at..open.end];
            open.end - rest.trim_start().len()
        };
        let mut found = Vec::new();
        loop {
            at = skip(at);
            let rest = &self.text[at..open.end];
            if rest.starts_with('>') || rest.starts_with("/>") {
                return Ok(found);
            }
            let end = rest.find(|c: char| c.is_whitespace() || "=/><\"'".contains(c));
            let name = at..at + end.filter(|end| *end > 0).ok_or_else(|| malformed(at))?;
            let equals = skip(name.end);
            let quoted = self.text[equals..open.end].strip_prefix('=');
            quoted.ok_or_else(|| malformed(at))?;
            let start = skip(equals + 1);
            let quote = self.text[start..open.end].chars().next();
            let quote = quote
                .filter(|c| "\"'".contains(*c))
                .ok_or_else(|| malformed(at))?;
            let value = &self.text[start + 1..open.end];
            let length = value.find(quote).ok_or_else(|| malformed(at))?;
            found.push(Attribute {
                name,
                value: start + 1..start + 1 + length,
            });
            at = start + 1 + length + 1;
        }
    }

    /// The value of an attribute, with its entities resolved.
    pub(super) fn attribute(&self, id: Id, name: &str) -> Result<Option<String>, Error> {
        let found = self.attributes(id)?;
        let Some(ours) = found
            .into_iter()
            .find(|a| &self.text[a.name.clone()] == name)
        else {
            return Ok(None);
        };
        let at = ours.value.start;
        let value = quick_xml::escape::unescape(&self.text[ours.value]);
        value
            .map(|value| Some(value.into_owned()))
            .map_err(|error| Error::Malformed {
                at,
                fault: error.to_string(),
            })
    }

    /// The value of an attribute of its first element of a name.
    pub(super) fn child_attribute(
        &self,
        id: Id,
        child: &str,
        name: &str,
    ) -> Result<Option<String>, Error> {
        match self.child(id, child) {
            Some(child) => self.attribute(child, name),
            None => Ok(None),
        }
    }

    /// The change that gives an element an attribute; none if it has it already. `value` needs no escaping.
    pub(super) fn set(&self, id: Id, name: &str, value: &str) -> Result<Option<Edit>, Error> {
        let found = self.attributes(id)?;
        let ours = found
            .into_iter()
            .find(|a| &self.text[a.name.clone()] == name);
        Ok(match ours {
            Some(ours) if &self.text[ours.value.clone()] == value => None,
            Some(ours) => Some(Edit {
                at: ours.value,
                with: value.to_owned(),
            }),
            None => {
                let at = self.open(id).start + 1 + self.name(id).len();
                let with = format!(" {name}='{value}'");
                Some(Edit { at: at..at, with })
            }
        })
    }
}

fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).expect("a position in a text in memory")
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    /// Elements that are open, outermost first.
    open: Vec<Id>,
    root: Option<Id>,
}

impl Builder {
    /// Answers what is wrong.
    fn open(&mut self, span: Range<usize>) -> Option<&'static str> {
        if self.open.is_empty() && self.root.is_some() {
            return Some("a second root");
        }
        let id = self.add(Kind::Element, span);
        self.root.get_or_insert(id);
        self.open.push(id);
        None
    }

    fn close(&mut self, tag: &Range<usize>) -> Option<&'static str> {
        let Some(id) = self.open.pop() else {
            return Some("an end tag without its start");
        };
        self.nodes[id].span.end = tag.end;
        None
    }

    fn leaf(&mut self, kind: Kind, span: Range<usize>, text: &str) -> Option<&'static str> {
        let blank = kind == Kind::Text
            && text[span.clone()]
                .trim_start_matches('\u{feff}')
                .trim()
                .is_empty();
        if self.open.is_empty() {
            let outside = kind == Kind::Other && !text[span].starts_with("<![CDATA[");
            return (!blank && !outside).then_some("text outside of the root");
        }
        self.add(kind, span);
        None
    }

    fn add(&mut self, kind: Kind, span: Range<usize>) -> Id {
        let id = self.nodes.len();
        let parent = self.open.last().copied();
        if let Some(parent) = parent {
            self.nodes[parent].children.push(id);
        }
        self.nodes.push(Node {
            kind,
            open: span.clone(),
            span,
            parent,
            children: Vec::new(),
        });
        id
    }

    fn document(self, text: &str) -> Result<Document<'_>, Error> {
        let malformed = |fault: &str| Error::Malformed {
            at: text.len(),
            fault: fault.into(),
        };
        if !self.open.is_empty() {
            return Err(malformed("it ends within an element"));
        }
        let root = self.root.ok_or_else(|| malformed("it has no root"))?;
        Ok(Document {
            text,
            nodes: self.nodes,
            root,
        })
    }
}
