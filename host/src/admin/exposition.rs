//! The Prometheus text exposition format, version 0.0.4 (Prometheus' documentation, "Exposition formats").

use std::fmt::{Display, Write as _};

/// The `Content-Type` that goes with it.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Goes up only, until the process starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A text in the making. The format wants a metric's samples together, right after its `HELP` and `TYPE`: call
/// [`Exposition::family`], then [`Exposition::sample`] for each of its series.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    /// Begin a metric.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        self.name = name;
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, false);
        // Writing to a string can't fail.
        let _ = writeln!(self.text, "\n# TYPE {name} {kind}");
    }

    /// A series of the metric that was begun last.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            escape(&mut self.text, text, true);
            self.text.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    /// The text.
    pub(super) fn finish(self) -> String {
        self.text
    }
}

/// Backslash and line feed are escaped everywhere, the double quote in label values only.
fn escape(text: &mut String, raw: &str, quote: bool) {
    for character in raw.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quote => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by hand after the format's description.
    #[test]
    fn escapes_what_the_format_wants_escaped() {
        let mut exposition = Exposition::default();
        exposition.family("a_total", Kind::Counter, "says \"back\\slash\"\nand more");
        exposition.sample(&[("pipeline", "q\"uo\\te\nx"), ("stage", "sink ñ")], 3_u64);
        exposition.family("b", Kind::Gauge, "plain");
        exposition.sample(&[], 0.25);
        assert_eq!(
            exposition.finish(),
            "# HELP a_total says \"back\\\\slash\"\\nand more\n\
             # TYPE a_total counter\n\
             a_total{pipeline=\"q\\\"uo\\\\te\\nx\",stage=\"sink ñ\"} 3\n\
             # HELP b plain\n\
             # TYPE b gauge\n\
             b 0.25\n"
        );
    }
}
