//! The text of a pipeline's file: no panic, places that are in the text, the same verdict twice, and no secret in what is shown.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use acequia::config::{Diagnostics, Env, PipelineConfig, parse};
use acequia_connector_api::Registry;

/// Stands for a secret in the corpus.
const SECRET: &str = "hunter2";
/// Keys whose values are secrets wherever they stand.
const SECRET_KEYS: [&str; 3] = ["password", "token", "sasl.password"];

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let secret = only_in_secrets(text);
    let fixed = BTreeMap::from([
        ("A".to_owned(), "1\"\n[x]".to_owned()),
        ("N".to_owned(), "7".to_owned()),
        ("E".to_owned(), String::new()),
    ]);
    for env in [Env::None, Env::Fixed(fixed)] {
        let shown = check(text, &env);
        assert!(!secret || !shown.contains(SECRET), "shows a secret: {shown}");
        assert_eq!(shown, check(text, &env), "another verdict on the same text");
    }
}

fn check(text: &str, env: &Env) -> String {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let registry = REGISTRY.get_or_init(acequia::connectors::registry);
    match parse(text, Path::new("pipelines/a.toml"), registry, env) {
        Ok(config) => of_config(&config),
        Err(diagnostics) => of_diagnostics(text, &diagnostics),
    }
}

fn of_config(config: &PipelineConfig) -> String {
    assert!(!config.sinks.is_empty());
    let places = config.exclusive();
    for (_, place) in &places {
        assert!(config.text.get(place.clone()).is_some(), "{place:?} is no place in the text");
    }
    assert!(acequia::config::conflicts(&[config]).is_empty());
    format!("{config:?} {places:?} {:?}", config.source.spec.schema())
}

fn of_diagnostics(text: &str, diagnostics: &Diagnostics) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    assert!(!diagnostics.is_empty());
    for diagnostic in &diagnostics.0 {
        if let Some(place) = &diagnostic.place {
            assert!(text.get(place.span.clone()).is_some(), "{place:?} is no place in the text");
            assert!(place.line >= 1 && place.column >= 1 && place.line <= text.split('\n').count());
        }
        assert!(!diagnostic.summary().contains(['\n', '\r']));
    }
    let plain = diagnostics.render(false);
    assert!(!plain.contains('\u{1b}'), "an escape sequence");
    let json = serde_json::to_string(diagnostics).expect("diagnostics are JSON");
    [plain, diagnostics.render(true), diagnostics.summary(), json, format!("{diagnostics:?}")].join("\n")
}

/// Whether the text is TOML and has the secret, and that only as the value of a key that names one.
fn only_in_secrets(text: &str) -> bool {
    fn count(value: &toml::Value, secret: bool) -> usize {
        match value {
            toml::Value::String(text) if secret && !names_a_variable(text) => text.matches(SECRET).count(),
            toml::Value::Array(list) => list.iter().map(|value| count(value, secret)).sum(),
            toml::Value::Table(table) => table
                .iter()
                .map(|(key, value)| count(value, SECRET_KEYS.contains(&key.as_str()) && !value.is_table()))
                .sum(),
            _ => 0,
        }
    }
    let all = text.matches(SECRET).count();
    all > 0 && toml::from_str::<toml::Table>(text).is_ok_and(|table| count(&toml::Value::Table(table), false) == all)
}

/// Whether what stands for a secret is (part of) the name of a variable, as in `${A_hunter2}`: a name is no secret.
fn names_a_variable(text: &str) -> bool {
    text.split("${").skip(1).any(|inside| {
        let name = inside.split(['}', ':']).next().unwrap_or_default();
        name.contains(SECRET) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}
