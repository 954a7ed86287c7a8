//! What the server's answers mean.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use acequia_connector_api::{ConnectorError, Kind};
use acequia_format::parse_timestamp;
use reqwest::header::{LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::server::Server;

/// An error answer is read up to here: it names each line that can't be parsed.
const ANSWER: usize = 4 << 20;

/// Why a request was refused.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The lines are at fault, or some of them. If `stored`, the others were taken all the same.
    Lines { message: String, stored: bool },
    /// The request is too large.
    TooLarge(String),
    /// It has nothing to do with what was sent: the same request may be taken later.
    Later(ConnectorError),
}

/// The body of an error answer.
#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// The response, if it is a success.
pub(crate) async fn success(
    server: &Server,
    bucket: Option<&str>,
    mut response: Response,
) -> Result<Response, Refusal> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let after = header(RETRY_AFTER).and_then(|value| retry_after(&value, SystemTime::now()));
    let location = header(LOCATION);
    let mut body = Vec::new();
    while body.len() < ANSWER {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(Refusal::Later(server.unreachable(error))),
        }
    }
    Err(refusal(server, bucket, status, &body, after, location.as_deref()))
}

fn refusal(
    server: &Server,
    bucket: Option<&str>,
    status: StatusCode,
    body: &[u8],
    after: Option<Duration>,
    location: Option<&str>,
) -> Refusal {
    let problem: Option<Problem> =
        serde_json::from_slice(body).ok().filter(|problem: &Problem| !problem.code.is_empty());
    let said = match &problem {
        Some(problem) => problem.message.clone(),
        None => short(String::from_utf8_lossy(body).trim()).to_owned(),
    };
    let partial = said.contains("partial write");
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => return Refusal::TooLarge(said),
        // Something else than InfluxDB, such as a proxy, has no such code; it says nothing about the lines.
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY if problem.is_some() => {
            return Refusal::Lines { stored: partial, message: said };
        }
        _ if status.is_server_error() && partial => return Refusal::Lines { stored: true, message: said },
        _ => {}
    }
    let (url, org) = (server.url(), &server.org);
    let number = status.as_u16();
    let message = match number {
        401 => format!("InfluxDB at {url} does not know the token: check `token` (401: {said})"),
        403 => format!(
            "the token has no right to do this at {url}, in the organization `{org}`: give it one, or another `token` \
             (403: {said})"
        ),
        404 if said.contains("organization") => {
            format!("InfluxDB at {url} has no organization `{org}` that the token can see: check `org` (404: {said})")
        }
        404 if said.contains("bucket") => match bucket {
            Some(bucket) => format!(
                "the organization `{org}` at {url} has no bucket `{bucket}` that the token can see: create it or correct \
                 `bucket` (404: {said})"
            ),
            None => format!("InfluxDB at {url} can't run the query (404: {said})"),
        },
        404 => format!(
            "there is no InfluxDB 2 at {url}: check `url`, which may have a path before `/api/v2` (404: {said})"
        ),
        429 => format!("InfluxDB at {url} asks to send less (429: {said})"),
        300..=399 => {
            format!("{url} answers {number} and names {}: give that as `url`", location.unwrap_or("no other address"))
        }
        _ => format!("InfluxDB at {url} answers {number}: {said}"),
    };
    let mut error = ConnectorError::retryable(message);
    error.kind = Kind::Retryable { after };
    Refusal::Later(error)
}

/// A message, cut to what a person reads.
pub(crate) fn short(text: &str) -> &str {
    let end = (0..=500.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    &text[..end]
}

/// The header's two forms: seconds, or a date as RFC 9110 has it.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let [_, day, month, year, time, "GMT"] = value.split_ascii_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? + 1;
    let micros = parse_timestamp(&format!("{year}-{month:02}-{day} {time}"))?;
    let at = UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).ok()?);
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after() {
        // Python: calendar.timegm((1994, 11, 6, 8, 49, 37))
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777 - 30);
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-5", now), None);
    }
}
