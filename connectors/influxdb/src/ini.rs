//! The configuration file of InfluxDB's own Python client: `influxdb.ini`.

use std::collections::BTreeMap;
use std::path::Path;

use acequia_connector_api::ConnectorError;

/// The section that the client reads unless it is told otherwise.
const SECTION: &str = "influx2";
/// The section of tags that every point gets.
const TAGS: &str = "tags";

/// What the file says. Keys are in lower case, values without the quotes around them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ini {
    keys: BTreeMap<String, String>,
    /// Tags that every point gets.
    pub(crate) tags: BTreeMap<String, String>,
}

impl Ini {
    pub(crate) fn read(path: &Path) -> Result<Self, ConnectorError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            ConnectorError::failed(format!("the file `{}` of `config` can't be read", path.display())).because(error)
        })?;
        Self::parse(&text).map_err(|message| ConnectorError::failed(format!("`{}`: {message}", path.display())))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut ini = Ini::default();
        let mut section = None;
        let mut found = false;
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = Some(name.trim().to_owned());
                found |= name.trim() == SECTION;
                continue;
            }
            let Some((key, value)) = line.find(['=', ':']).map(|at| (line[..at].trim(), line[at + 1..].trim())) else {
                // The line may hold a token, so it is not shown.
                return Err(format!("line {} is neither `[section]` nor `key = value`", number + 1));
            };
            let (key, value) = (key.to_lowercase(), unquote(value).to_owned());
            match section.as_deref() {
                Some(SECTION) => ini.keys.insert(key, value),
                Some(TAGS) => ini.tags.insert(key, from_environment(value)?),
                _ => None,
            };
        }
        if found { Ok(ini) } else { Err(format!("there is no section `[{SECTION}]`")) }
    }

    /// The value of a key, if it is there and not empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A truth value, as the client reads it.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let value = self.get(key)?.to_lowercase();
        Some(["true", "1", "t", "y", "yes"].contains(&value.as_str()))
    }
}

/// `${env.NAME}` stands for an environment variable.
fn from_environment(value: String) -> Result<String, String> {
    match value.strip_prefix("${env.").and_then(|value| value.strip_suffix('}')) {
        Some(name) => std::env::var(name)
            .map_err(|_| format!("a tag is taken from the environment variable `{name}`, which is not set")),
        None => Ok(value),
    }
}

fn unquote(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|value: &str| value.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_reads() {
        let text = "; by hand\n[influx2]\nurl=http://localhost:8086\nOrg = \"my-org\"\ntoken: a=b==\ntimeout=6000\n\
                    verify_ssl=False\nbucket =\n\n[tags]\nid = 132-987\n[other]\nurl = no\n";
        let ini = Ini::parse(text).unwrap();
        assert_eq!(ini.get("url"), Some("http://localhost:8086"));
        assert_eq!(ini.get("org"), Some("my-org"));
        assert_eq!(ini.get("token"), Some("a=b=="));
        assert_eq!(ini.get("bucket"), None);
        assert_eq!(ini.flag("verify_ssl"), Some(false));
        assert_eq!(ini.flag("auth_basic"), None);
        assert_eq!(ini.tags, BTreeMap::from([("id".to_owned(), "132-987".to_owned())]));
    }

    #[test]
    fn what_is_wrong_is_said_without_the_token() {
        assert_eq!(Ini::parse("[influx2]\nmy-token").unwrap_err(), "line 2 is neither `[section]` nor `key = value`");
        assert_eq!(Ini::parse("url = x").unwrap_err(), "there is no section `[influx2]`");
    }
}
