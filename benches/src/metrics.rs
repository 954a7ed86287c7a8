//! What a daemon says of itself at `/metrics`.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

/// All of it, from the daemon whose admin listener is there.
pub(crate) async fn fetch(admin: &str) -> Result<String> {
    Ok(reqwest::get(format!("{admin}/metrics")).await?.text().await?)
}

/// A metric of the stages of that name, by pipeline.
pub(crate) fn of_stage(text: &str, metric: &str, stage: &str) -> Result<BTreeMap<String, f64>> {
    let stage = format!("stage=\"{stage}\"");
    let samples = text.lines().filter_map(|line| Some((line, line.strip_prefix(metric)?.strip_prefix('{')?)));
    samples
        .filter(|(_, labels)| labels.contains(&stage))
        .map(|(line, labels)| {
            let name = labels.split_once("pipeline=\"").and_then(|(_, rest)| rest.split_once('"'));
            let value = labels.rsplit(' ').next().and_then(|value| value.parse().ok());
            name.zip(value)
                .map(|((name, _), value)| (name.to_owned(), value))
                .with_context(|| format!("what is {line}?"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_for_each_pipeline() {
        let text = "# TYPE rows counter\nrows{pipeline=\"a\",stage=\"x\"} 7\nrows{pipeline=\"b\",stage=\"x\"} 8\n\
                    rows{pipeline=\"b\",stage=\"y\"} 9\nrows_more{pipeline=\"a\",stage=\"x\"} 1\n";
        let values = of_stage(text, "rows", "x").unwrap();
        assert_eq!(values, BTreeMap::from([("a".to_owned(), 7.0), ("b".to_owned(), 8.0)]));
        assert!(of_stage("rows{pipeline=\"a\",stage=\"x\"} ?\n", "rows", "x").is_err());
    }
}
