//! `docs/invariants.md` against the sources: the places that it names cite the invariant, and its tests are there.

use std::path::Path;

use acequia_tests::workspace;
use regex::Regex;

use super::held::{is_test, read};

const COUNT: u32 = 7;

struct Section {
    number: u32,
    text: String,
}

fn sections() -> Vec<Section> {
    let text = std::fs::read_to_string(workspace().join("docs/invariants.md")).unwrap();
    let heading = Regex::new(r"(?m)^## ([0-9])[.] ").unwrap();
    let starts: Vec<(usize, u32)> =
        heading.captures_iter(&text).map(|found| (found.get(0).unwrap().start(), found[1].parse().unwrap())).collect();
    let ends = starts.iter().skip(1).map(|(start, _)| *start).chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|((start, number), end)| Section { number: *number, text: text[*start..end].to_owned() })
        .collect()
}

/// The paths that a line links to, from `docs/`.
fn links(line: &str) -> Vec<String> {
    let link = Regex::new(r"\]\(\.\./([^)]+)\)").unwrap();
    link.captures_iter(line).map(|found| found[1].to_owned()).collect()
}

/// `invariant 3`, `invariants 1 and 3`, `invariants 1 to 4`.
fn cites(text: &str, number: u32) -> bool {
    let citation = Regex::new(r"[Ii]nvariants? [0-9](?:(?:,| and| to) [0-9])*").unwrap();
    let range = Regex::new(r"([0-9]) to ([0-9])").unwrap();
    citation.find_iter(text).any(|found| {
        let text = found.as_str();
        let inside = |found: regex::Captures<'_>| {
            let [from, to] = [&found[1], &found[2]].map(|number| number.parse::<u32>().unwrap());
            (from..=to).contains(&number)
        };
        text.contains(&number.to_string()) || range.captures(text).is_some_and(inside)
    })
}

/// The `.rs` files of the project below a folder.
fn sources(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_invariant_is_described() {
    let numbers: Vec<u32> = sections().iter().map(|section| section.number).collect();
    assert_eq!(numbers, (1..=COUNT).collect::<Vec<_>>());
}

/// Lines that begin with `- ` and a link name the code; those that begin with a name in backquotes name a test.
#[test]
fn code_and_tests_are_where_it_says() {
    let test = Regex::new(r"^- `([a-z0-9_]+)`").unwrap();
    let mut wrong = Vec::new();
    for Section { number, text } in sections() {
        let (mut places, mut tests) = (0, 0);
        for line in text.lines() {
            if let Some(name) = test.captures(line) {
                let name = &name[1];
                let paths = links(line);
                if !paths.iter().any(|path| is_test(path, name)) {
                    wrong.push(format!("{number}: there is no test `{name}` in {paths:?}"));
                }
                tests += 1;
            } else if line.starts_with("- [") {
                for path in links(line).into_iter().filter(|path| !cites(&read(path), number)) {
                    wrong.push(format!("{number}: {path} does not cite it"));
                }
                places += 1;
            }
        }
        if places == 0 || tests < 2 {
            wrong.push(format!("{number}: {places} places, {tests} tests"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_citation_is_of_an_invariant_that_there_is() {
    let mut files = Vec::new();
    for folder in ["connectors", "host", "plugins"] {
        sources(&workspace().join(folder), &mut files);
    }
    let citation = Regex::new(r"[Ii]nvariants? ([0-9]+)").unwrap();
    let mut cited = std::collections::BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        for found in citation.captures_iter(&text) {
            let number: u32 = found[1].parse().unwrap();
            assert!((1..=COUNT).contains(&number), "{}: {}", file.display(), &found[0]);
        }
        cited.extend((1..=COUNT).filter(|number| cites(&text, *number)));
    }
    assert_eq!(cited.into_iter().collect::<Vec<_>>(), (1..=COUNT).collect::<Vec<_>>());
}

#[test]
fn citations_are_found() {
    assert!(cites("so that invariant 3 holds", 3) && !cites("so that invariant 3 holds", 4));
    assert!(cites("(invariants 1 to 4):", 3) && !cites("(invariants 1 to 4):", 5));
    assert!(cites("Invariants 2 and 6.", 6));
}
