//! Links within the documentation lead somewhere.

use std::path::Path;

use acequia_tests::workspace;
use regex::Regex;

/// Every page, as a path from the checkout.
pub fn pages() -> Vec<String> {
    let pages_in = |folder: &str| {
        let entries = std::fs::read_dir(workspace().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".md")).map(|name| format!("{folder}{name}")).collect::<Vec<_>>()
    };
    [pages_in(""), pages_in("docs/")].concat()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect()
}

fn anchors(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap_or_default();
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        fenced ^= line.starts_with("```");
        if !fenced && line.starts_with('#') {
            found.push(anchor(line.trim_start_matches('#')));
        }
    }
    found
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)# ]*)(?:#([^) ]*))?\)").unwrap();
    let mut broken = Vec::new();
    for page in pages() {
        let path = workspace().join(&page);
        let text = std::fs::read_to_string(&path).unwrap();
        for found in link.captures_iter(&text) {
            let target = &found[1];
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            let file = if target.is_empty() { path.clone() } else { path.parent().unwrap().join(target) };
            let there =
                file.exists() && found.get(2).is_none_or(|name| anchors(&file).contains(&name.as_str().to_owned()));
            if !there {
                broken.push(format!("{page}: {}", &found[0]));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn anchors_are_those_of_the_usual_viewers() {
    assert_eq!(anchor(" `[[transform]]`"), "transform");
    assert_eq!(anchor(" Where plugins are looked for"), "where-plugins-are-looked-for");
    assert_eq!(anchor("A `file`, or two?"), "a-file-or-two");
}
