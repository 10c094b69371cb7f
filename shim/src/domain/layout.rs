//! How a new element is laid out: as those around it, so that a person can read the XML, and always the same, so that a second time changes
//! nothing.

use super::tree::{Document, Edit, Id};

/// The beginning of an element's line; none: the XML is written without lines there.
#[derive(Clone)]
pub(super) struct Layout {
    indent: Option<String>,
}

impl Layout {
    /// As an element that is there.
    pub(super) fn of(document: &Document<'_>, id: Id) -> Self {
        let line = |blank: &str| blank.rfind('\n').map(|at| blank[at + 1..].to_owned());
        Self {
            indent: document.blank_before(id).and_then(line),
        }
    }

    /// What comes between an element and the next one.
    pub(super) fn between(&self) -> String {
        match &self.indent {
            Some(indent) => format!("\n{indent}"),
            None => String::new(),
        }
    }

    /// Of the element's children.
    pub(super) fn inner(&self) -> Self {
        let deeper = |indent: &String| {
            let unit = if indent.contains('\t') { "\t" } else { "  " };
            format!("{indent}{unit}")
        };
        Self {
            indent: self.indent.as_ref().map(deeper),
        }
    }

    /// An element with its children, the first line without its indentation.
    pub(super) fn element(&self, start: &str, children: &[String], name: &str) -> String {
        let inner = self.inner().between();
        let mut text = start.to_owned();
        for child in children {
            text.push_str(&inner);
            text.push_str(child);
        }
        text.push_str(&self.between());
        text.push_str(&format!("</{name}>"));
        text
    }

    /// Puts an element after one that is there, which has this layout.
    pub(super) fn after(&self, document: &Document<'_>, sibling: Id, element: &str) -> Edit {
        let end = document.span(sibling).end;
        Edit {
            at: end..end,
            with: format!("{}{element}", self.between()),
        }
    }

    /// Puts an element before one that is there, which has this layout.
    pub(super) fn before(&self, document: &Document<'_>, sibling: Id, element: &str) -> Edit {
        let start = document.span(sibling).start;
        Edit {
            at: start..start,
            with: format!("{element}{}", self.between()),
        }
    }
}

/// Puts an element as the last one of a parent. `make` writes it in the layout that it gets.
pub(super) fn append(
    document: &Document<'_>,
    parent: Id,
    make: impl FnOnce(&Layout) -> String,
) -> Edit {
    if let Some(last) = document.elements(parent).last() {
        let layout = Layout::of(document, last);
        return layout.after(document, last, &make(&layout));
    }
    let element = make(&Layout { indent: None });
    if document.is_empty_tag(parent) {
        let tag = document.open(parent);
        // In the place of `/>`, and of blanks before it.
        let text = document.slice(parent);
        let start = text.trim_end_matches('>').trim_end_matches('/').trim_end();
        return Edit {
            at: tag.start + start.len()..tag.end,
            with: format!(">{element}</{}>", document.name(parent)),
        };
    }
    // Right behind the tag: what is there, blanks or comments, is no layout of elements.
    let start = document.open(parent).end;
    Edit {
        at: start..start,
        with: element,
    }
}

/// A value between single quotes.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '\'' => text.push_str("&apos;"),
            '"' => text.push_str("&quot;"),
            // Else a reader would make blanks of them.
            '\n' => text.push_str("&#10;"),
            '\r' => text.push_str("&#13;"),
            '\t' => text.push_str("&#9;"),
            c => text.push(c),
        }
    }
    text
}
