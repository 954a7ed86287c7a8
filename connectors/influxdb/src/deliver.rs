//! A chunk to the server, and the lines that it refuses to the dead letters.
//!
//! A request with a line that can't be parsed is refused as a whole (400). The answer names these lines, so they are taken out
//! and the rest is sent again. A request with a point that can't be stored (422: a field of another type than it has already)
//! is stored except for such points. The answer says how many they are, and the field. If that does not say which they are,
//! the request is cut in halves, which are sent again, until it does: writing a point twice changes nothing.

use std::collections::HashMap;
use std::io::Write;

use acequia_connector_api::{ConnectorError, FailedRow};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use influxdb_line_protocol::{FieldValue, parse_lines};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::answer::{Refusal, short, success};
use crate::chunk::Chunk;
use crate::server::Server;

/// Where points go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) server: Server,
    pub(crate) bucket: String,
    pub(crate) precision: &'static str,
    pub(crate) gzip: bool,
}

impl Target {
    async fn post(&self, body: Bytes) -> Result<(), Refusal> {
        let query = [("bucket", self.bucket.as_str()), ("precision", self.precision)];
        let mut request = self.server.post("/api/v2/write", &query).map_err(Refusal::Later)?;
        request = request.header(CONTENT_TYPE, "text/plain; charset=utf-8");
        let body = if self.gzip {
            request = request.header(CONTENT_ENCODING, "gzip");
            compress(&body).map_err(|error| {
                Refusal::Later(ConnectorError::retryable("the points can't be compressed").because(error))
            })?
        } else {
            body
        };
        let response =
            request.body(body).send().await.map_err(|error| Refusal::Later(self.server.unreachable(error)))?;
        success(&self.server, Some(&self.bucket), response).await.map(drop)
    }

    /// Can points be written here? A write without a point shows it to every token that may write.
    pub(crate) async fn probe(&self) -> Result<(), ConnectorError> {
        match self.post(Bytes::from_static(b"# acequia\n")).await {
            Ok(()) => Ok(()),
            Err(Refusal::Later(error)) => Err(error),
            Err(Refusal::Lines { message, .. } | Refusal::TooLarge(message)) => {
                Err(ConnectorError::retryable(format!("InfluxDB at {} refuses to write: {message}", self.server.url())))
            }
        }
    }

    /// Write the chunk's lines. On an error the chunk knows what is left to do.
    pub(crate) async fn deliver(&self, chunk: &mut Chunk, failed: &mut Vec<FailedRow>) -> Result<(), ConnectorError> {
        while let Some(lines) = chunk.todo.last() {
            let body = chunk.lines(lines);
            let answer = self.post(body).await;
            if let Err(Refusal::Later(error)) = answer {
                return Err(error);
            }
            let lines = chunk.todo.pop().unwrap_or_default();
            match answer {
                Ok(()) | Err(Refusal::Later(_)) => {}
                Err(Refusal::TooLarge(message)) => {
                    let message = format!("InfluxDB refuses the point as too large (413: {message})");
                    cut(chunk, lines, &message, failed);
                }
                Err(Refusal::Lines { message, stored: false }) => unparsable(chunk, lines, &message, failed),
                Err(Refusal::Lines { message, stored: true }) => dropped(chunk, lines, &message, failed),
            }
        }
        Ok(())
    }
}

fn compress(body: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body)?;
    encoder.finish().map(Bytes::from)
}

fn fail(chunk: &Chunk, line: usize, message: &str, failed: &mut Vec<FailedRow>) {
    failed.extend(chunk.fail(line, message));
}

/// It is not known which lines are at fault: ask for each half, the first one first.
fn cut(chunk: &mut Chunk, mut lines: Vec<usize>, message: &str, failed: &mut Vec<FailedRow>) {
    if let [line] = lines[..] {
        fail(chunk, line, message, failed);
        return;
    }
    let second = lines.split_off(lines.len() / 2);
    chunk.todo.extend([second, lines].into_iter().filter(|lines| !lines.is_empty()));
}

/// Nothing was stored. `unable to parse 'LINE': REASON` stands in the message for each line at fault.
fn unparsable(chunk: &mut Chunk, lines: Vec<usize>, message: &str, failed: &mut Vec<FailedRow>) {
    let mut reasons = HashMap::new();
    for part in message.split("unable to parse '").skip(1) {
        if let Some((line, reason)) = part.trim_end().rsplit_once("': ") {
            reasons.insert(line.as_bytes(), reason);
        }
    }
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for line in lines {
        match reasons.get(chunk.line(line)) {
            Some(reason) => bad.push((line, format!("InfluxDB can't read the point: {}", short(reason)))),
            None => good.push(line),
        }
    }
    if bad.is_empty() {
        cut(chunk, good, &format!("InfluxDB refuses the point: {}", short(message)), failed);
        return;
    }
    for (line, message) in bad {
        fail(chunk, line, &message, failed);
    }
    if !good.is_empty() {
        chunk.todo.push(good);
    }
}

/// All but some points were stored.
fn dropped(chunk: &mut Chunk, lines: Vec<usize>, message: &str, failed: &mut Vec<FailedRow>) {
    let text = format!("InfluxDB does not store the point: {}", short(message));
    let count = number_after(message, "dropped=").or_else(|| number_after(message, "dropped "));
    if count == Some(lines.len()) {
        for line in lines {
            fail(chunk, line, &text, failed);
        }
        return;
    }
    if let Some(conflict) = Conflict::parse(message) {
        let bad: Vec<usize> = lines.iter().copied().filter(|line| conflict.meets(chunk.line(*line))).collect();
        if count == Some(bad.len()) {
            for line in bad {
                fail(chunk, line, &text, failed);
            }
            return;
        }
    }
    cut(chunk, lines, &text, failed);
}

fn number_after(text: &str, mark: &str) -> Option<usize> {
    let rest = text.rsplit_once(mark)?.1;
    let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

/// `input field "F" on measurement "M" is type T, already exists as type U`.
struct Conflict<'a> {
    field: &'a str,
    measurement: &'a str,
    kind: &'a str,
}

impl<'a> Conflict<'a> {
    fn parse(message: &'a str) -> Option<Self> {
        let (field, rest) = message.split_once("input field \"")?.1.split_once("\" on measurement \"")?;
        let (measurement, rest) = rest.split_once("\" is type ")?;
        let (kind, _) = rest.split_once(',')?;
        // Go quotes them; a name with an escape in it is left to the halves.
        (!field.contains('\\') && !measurement.contains('\\')).then_some(Conflict { field, measurement, kind })
    }

    /// Whether a line has the field as that type.
    fn meets(&self, line: &[u8]) -> bool {
        let Some(Ok(parsed)) = std::str::from_utf8(line).ok().and_then(|line| parse_lines(line).next()) else {
            return false;
        };
        let kind = parsed.field_value(self.field).map(|value| match value {
            FieldValue::I64(_) => "integer",
            FieldValue::U64(_) => "unsigned",
            FieldValue::F64(_) => "float",
            FieldValue::String(_) => "string",
            FieldValue::Boolean(_) => "boolean",
        });
        kind == Some(self.kind) && parsed.series.measurement.as_str() == self.measurement
    }
}
