//! `docs/failures-of-others.md`: every report has a test that names it.

use regex::Regex;

use super::held;

const PAGE: &str = "docs/failures-of-others.md";

/// The reports of a row: the repository's name, as tests write it, and the number.
fn reports(theirs: &str) -> Vec<(String, String)> {
    let link =
        Regex::new(r"\[([A-Za-z0-9_./-]*)#([0-9]+)\]\(https://github\.com/([^/]+)/([^/]+)/(issues|pull)/([0-9]+)\)");
    let mut found = Vec::new();
    for report in link.unwrap().captures_iter(theirs) {
        let repository = format!("{}/{}", &report[3], &report[4]);
        assert!(report[1].is_empty() || report[1] == repository, "{}", &report[0]);
        assert_eq!(report[2], report[6], "the text and the link are of two reports");
        found.push((report[4].to_owned(), report[2].to_owned()));
    }
    found
}

/// Whether a test's name has both: `kafka-connect-hdfs#411` is in `kafka_connect_hdfs_411_it_recovers`.
fn names(test: &str, (repository, number): &(String, String)) -> bool {
    // Two of them have longer names than people call them by.
    let repository = repository.strip_suffix("-config").unwrap_or(repository).replace("scylla-rust-driver", "scylla");
    let numbers: Vec<&str> = test.split('_').collect();
    test.contains(&repository.replace('-', "_")) && numbers.contains(&number.as_str())
}

#[test]
fn every_failure_of_others_has_a_test_that_names_it() {
    let mut wrong = Vec::new();
    let mut named = 0;
    for (_, cells) in held::rows(PAGE) {
        let [theirs, _, _, test] = &cells[..] else { panic!("four cells: {cells:?}") };
        let (reports, tests) = (reports(theirs), held::tests(test));
        if reports.is_empty() || tests.is_empty() {
            wrong.push(format!("no report or no test: {theirs}"));
        }
        for report in &reports {
            named += 1;
            if !tests.iter().any(|(test, _)| names(test, report)) {
                wrong.push(format!("no test bears the name of {report:?}"));
            }
        }
        wrong.extend(held::missing(test));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(named >= 39, "{named} reports");
}

/// Nothing is tested here that the page does not tell.
#[test]
fn every_test_of_a_failure_of_others_is_on_the_page() {
    let on_the_page = held::tests(&held::read(PAGE));
    let test = Regex::new(r"#\[test\]\nfn ([a-z0-9_]+)\(").unwrap();
    for theme in ["delivery", "plugins", "rejected", "reload", "running", "speed"] {
        let path = format!("tests/e2e/others/{theme}.rs");
        for found in test.captures_iter(&held::read(&path)) {
            let one = (found[1].to_owned(), path.clone());
            assert!(on_the_page.contains(&one), "{one:?} is not on {PAGE}");
        }
    }
}

#[test]
fn reports_are_found() {
    let one = reports("[a/b-c#12](https://github.com/a/b-c/issues/12), [#3](https://github.com/a/b-c/pull/3)");
    assert_eq!(one, [("b-c".to_owned(), "12".to_owned()), ("b-c".to_owned(), "3".to_owned())]);
    assert!(names("b_c_12_3_it_works", &one[0]) && !names("b_c_123_it_works", &one[0]) && !names("c_12", &one[0]));
}
