//! What is wrong with a configuration, and where: the file, the line, a caret under the very key or value.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use serde::Serialize;

use super::PipelineConfig;
use super::mask::mask_secrets;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes, from the start of the file (a byte order mark does not count).
    pub span: Range<usize>,
}

/// One thing that is wrong. `Display` is what a person reads, without colours.
#[derive(Clone, Serialize)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Where in the file; `None` if it is about the file as a whole.
    #[serde(flatten)]
    pub place: Option<Place>,
    /// What is wrong: lower case, no full stop.
    pub message: String,
    /// What stands beside the caret.
    pub label: Option<String>,
    /// What to do about it, one item a line.
    pub help: Vec<String>,
    /// The file's text with secrets covered.
    #[serde(skip)]
    text: Option<Arc<str>>,
}

/// The text of a file, ready to be shown: what looks like a secret is covered.
#[derive(Clone)]
pub struct SourceText {
    path: PathBuf,
    shown: Arc<str>,
}

impl SourceText {
    /// The text of the file at `path`.
    pub fn new(path: &Path, text: &str) -> Self {
        SourceText { path: path.to_owned(), shown: Arc::from(mask_secrets(text)) }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text as it may be shown; as long as the file's, byte for byte.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Something is wrong at `span`.
    pub fn at(&self, span: Range<usize>, message: impl Into<String>) -> Diagnostic {
        let span = within(&self.shown, span);
        let before = self.shown.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let place = Place {
            line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            span,
        };
        Diagnostic {
            file: self.path.clone(),
            place: Some(place),
            message: message.into(),
            label: None,
            help: Vec::new(),
            text: Some(self.shown.clone()),
        }
    }
}

/// A path for a terminal: the name of a file may have any character in it.
fn shown(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        if character.is_control() { text.extend(character.escape_debug()) } else { text.push(character) }
    }
    text
}

/// `span` moved to lie within `text`, on the borders of characters.
fn within(text: &str, span: Range<usize>) -> Range<usize> {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

impl Diagnostic {
    /// About a file as a whole.
    pub fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Diagnostic {
            file: file.to_owned(),
            place: None,
            message: message.into(),
            label: None,
            help: Vec::new(),
            text: None,
        }
    }

    /// About a place in a pipeline's file: for what only turns up later, when its plugins are loaded.
    pub fn in_config(config: &PipelineConfig, span: Range<usize>, message: impl Into<String>) -> Self {
        SourceText::new(&config.path, &config.text).at(span, message)
    }

    /// With a text beside the caret.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// With advice.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// With the advice, if there is some.
    pub fn maybe_help(mut self, help: Option<String>) -> Self {
        self.help.extend(help);
        self
    }

    /// One line: `pipelines/a.toml:3:5: unknown key ...`, for logs and status.
    pub fn summary(&self) -> String {
        let mut line = shown(&self.file);
        if let Some(place) = &self.place {
            line.push_str(&format!(":{}:{}", place.line, place.column));
        }
        line.push_str(": ");
        line.push_str(&self.message);
        if let Some(label) = &self.label {
            line.push_str(": ");
            line.push_str(label);
        }
        for help in &self.help {
            line.push_str("; ");
            line.push_str(help);
        }
        line.replace(['\r', '\n'], " ")
    }

    /// As a person reads it: several lines, no line break at the end.
    pub fn render(&self, colours: bool) -> String {
        let path = shown(&self.file);
        let title = Level::ERROR.primary_title(self.message.as_str());
        let mut group = match (&self.place, &self.text) {
            (Some(place), Some(text)) => {
                let label = self.label.as_deref().map(normalize_untrusted_str);
                let annotation = AnnotationKind::Primary.span(place.span.clone()).label(label);
                title.element(Snippet::source(text.as_ref()).path(path).annotation(annotation))
            }
            _ => Group::with_title(title).element(Origin::path(path)),
        };
        for help in &self.help {
            // The lines are normalized one by one: the function would show a line break as a symbol.
            let lines: Vec<_> = help.lines().map(normalize_untrusted_str).collect();
            group = group.element(Level::HELP.message(lines.join("\n")));
        }
        let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
        renderer.render(&[group]).lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl fmt::Debug for Diagnostic {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.summary())
    }
}

impl std::error::Error for Diagnostic {}

/// All that is wrong with a configuration; never empty where it is an error.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// As a person reads them, a blank line between two.
    pub fn render(&self, colours: bool) -> String {
        self.0.iter().map(|diagnostic| diagnostic.render(colours)).collect::<Vec<_>>().join("\n\n")
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One line a diagnostic; see [`Diagnostic::summary`].
    pub fn summary(&self) -> String {
        self.0.iter().map(Diagnostic::summary).collect::<Vec<_>>().join("\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Diagnostics(vec![diagnostic])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_from_anywhere_is_made_to_fit() {
        let source = SourceText::new(Path::new("a.toml"), "a = \"ä\"\nb = 1\n");
        // "ä" is bytes 5 and 6: a span that starts inside it starts before it.
        let place = source.at(6..7, "x").place.unwrap();
        assert_eq!((place.line, place.column, place.span), (1, 6, 5..7));
        let place = source.at(900..1000, "x").place.unwrap();
        assert_eq!((place.line, place.column, place.span), (3, 1, 15..15));
        // Line 2 starts at byte 9: a, space, =, space, quote (5 bytes), ä (2), quote, line break.
        assert_eq!(source.at(13..14, "x").summary(), "a.toml:2:5: x");
    }

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        let diagnostic = SourceText::new(Path::new("a.toml"), "a = 1")
            .at(0..1, "\u{1b}[31mred")
            .label("\u{1b}[31mred")
            .help("\u{1b}[31mred\nnext");
        assert!(!diagnostic.render(false).contains('\u{1b}'));
        let diagnostic = Diagnostic::of_file(Path::new("\u{1b}[31m\n.toml"), "x");
        assert_eq!(diagnostic.summary(), "\\u{1b}[31m\\n.toml: x");
        assert_eq!(diagnostic.render(false), "error: x\n--> \\u{1b}[31m\\n.toml");
    }
}
