use acequia_plugin_sdk::testing::{self, Runner};
use acequia_plugin_sdk::{Output, Passes, Selection};

use super::*;

type Plugin = Runner<acequia_plugin_sdk::__private::adapters::Aggregate<WordCount>>;

fn plugin(config: &str) -> Plugin {
    testing::aggregate::<WordCount>(config, &testing::any_schema()).unwrap()
}

fn apply(plugin: &mut Plugin, lines: &[&str]) -> Output {
    plugin.apply(&testing::batch(lines.len() as u32).nullable_text("value", lines.iter().copied().map(Some))).unwrap()
}

fn totals(output: &Output) -> Vec<(&str, i64)> {
    let [words, counts] = &output.columns[..] else { panic!("two columns") };
    assert_eq!(output.rows, Selection::Fresh(counts.int64s().len() as u32));
    words.texts().into_iter().zip(counts.int64s().iter().copied()).collect()
}

#[test]
fn update_gives_the_words_of_the_batch_with_their_totals() {
    let mut plugin = plugin("{}");
    assert_eq!(plugin.plan().passes, Passes::Only(Vec::new()));
    assert_eq!(totals(&apply(&mut plugin, &["the cat", "the dog"])), [("the", 2), ("cat", 1), ("dog", 1)]);
    assert_eq!(totals(&apply(&mut plugin, &["a dog", "the dog dog"])), [("a", 1), ("dog", 4), ("the", 3)]);
    assert_eq!(totals(&apply(&mut plugin, &[])), []);
}

#[test]
fn complete_gives_all_totals() {
    let mut plugin = plugin(r#"{ "mode": "complete" }"#);
    assert_eq!(totals(&apply(&mut plugin, &["b a b"])), [("b", 2), ("a", 1)]);
    assert_eq!(totals(&apply(&mut plugin, &["c a"])), [("b", 2), ("a", 2), ("c", 1)]);
    assert_eq!(totals(&apply(&mut plugin, &[])), [("b", 2), ("a", 2), ("c", 1)]);
}

#[test]
fn splits_as_spark_does() {
    // Java: " a  b ".split(" ", -1) is ["", "a", "", "b", ""]; "".split(" ", -1) is [""]; a tab is no space.
    assert_eq!(totals(&apply(&mut plugin("{}"), &[" a  b "])), [("", 3), ("a", 1), ("b", 1)]);
    assert_eq!(totals(&apply(&mut plugin("{}"), &["", "a\tb\u{a0}c"])), [("", 1), ("a\tb\u{a0}c", 1)]);
}

#[test]
fn white_space_is_an_option() {
    let mut plugin = plugin(r#"{ "split": "whitespace" }"#);
    assert_eq!(totals(&apply(&mut plugin, &[" a\t\u{a0}b\u{3000}a ", "", "   "])), [("a", 2), ("b", 1)]);
}

#[test]
fn lower_case_is_an_option() {
    let mut plugin = plugin(r#"{ "lowercase": true }"#);
    assert_eq!(totals(&apply(&mut plugin, &["Ärger ÄRGER The THE the"])), [("ärger", 2), ("the", 3)]);
}

#[test]
fn a_long_row_is_counted_as_a_short_one_is() {
    for config in ["{}", r#"{ "split": "whitespace" }"#, r#"{ "lowercase": true }"#] {
        let mut long = "The the  cat ".repeat(4000);
        long.push_str("DOG");
        assert!(long.len() > LONG);
        let lines = ["a cat", &long, "the end"];
        let mut plugin = plugin(config);
        let together = apply(&mut plugin, &lines);
        let words: Vec<String> = totals(&together).iter().map(|(word, total)| format!("{word} {total}")).collect();
        let expected = match config {
            "{}" => "a 1,cat 4001,The 4000,the 4001, 4000,DOG 1,end 1",
            r#"{ "split": "whitespace" }"# => "a 1,cat 4001,The 4000,the 4001,DOG 1,end 1",
            _ => "a 1,cat 4001,the 8001, 4000,dog 1,end 1",
        };
        assert_eq!(words.join(","), expected, "{config}");
    }
    let mut plugin = plugin(r#"{ "max_words": 3 }"#);
    let long = format!("a b {}c d", "a ".repeat(LONG));
    let output = apply(&mut plugin, &["a", &long, "b c"]);
    assert_eq!(totals(&output), [("a", 1), ("b", 1), ("c", 1)]);
    assert_eq!(output.failed.len(), 1);
}

#[test]
fn a_null_has_no_words() {
    let batch = testing::batch(3).nullable_text("value", [Some("a"), None, Some("a")]);
    assert_eq!(totals(&plugin("{}").apply(&batch).unwrap()), [("a", 2)]);
}

#[test]
fn a_row_that_would_bring_too_many_words_fails_and_leaves_no_trace() {
    let mut plugin = plugin(r#"{ "max_words": 3 }"#);
    let output = apply(&mut plugin, &["a b", "a c d", "c a", "d", "a b c"]);
    // "a c d" would make four words: neither its `a` nor its `c` counts. "c a" makes three, and "d" one too many.
    assert_eq!(totals(&output), [("a", 3), ("b", 2), ("c", 2)]);
    let message =
        "the row has a new word, but 3 words are counted already: raise `max_words`, or drop rare words first";
    assert_eq!(testing::failures(&output), [(1, message), (3, message)]);
}

#[test]
fn a_row_with_too_long_words_fails() {
    let mut plugin = plugin(r#"{ "max_bytes": 5 }"#);
    let output = apply(&mut plugin, &["abcd", "efg", "x"]);
    assert_eq!(totals(&output), [("abcd", 1), ("x", 1)]);
    assert_eq!(testing::failures(&output).len(), 1);
}

#[test]
fn a_snapshot_is_compact_and_restores_order_and_totals() {
    let mut old = plugin("{}");
    apply(&mut old, &["b a b "]);
    let snapshot = old.snapshot().unwrap();
    // Version 1, three words: "b" twice, "a" once, "" once.
    assert_eq!(snapshot, [1, 3, 1, b'b', 2, 1, b'a', 1, 0, 1]);

    let mut new = plugin(r#"{ "mode": "complete" }"#);
    new.restore(&snapshot).unwrap();
    assert_eq!(totals(&apply(&mut new, &["a c"])), [("b", 2), ("a", 2), ("", 1), ("c", 1)]);
    new.restore(&snapshot).unwrap();
    assert_eq!(new.snapshot().unwrap(), snapshot);
}

#[test]
fn a_lower_limit_keeps_what_was_counted() {
    let mut old = plugin("{}");
    apply(&mut old, &["a b c"]);
    let mut new = plugin(r#"{ "max_words": 2 }"#);
    new.restore(&old.snapshot().unwrap()).unwrap();
    let output = apply(&mut new, &["c", "d"]);
    assert_eq!(totals(&output), [("c", 2)]);
    assert_eq!(testing::failures(&output).len(), 1);
}

#[test]
fn bad_snapshots_are_refused() {
    let bad: [&[u8]; 7] = [
        &[],
        &[2, 0],                         // another version
        &[1, 1, 5, b'a'],                // ends early
        &[1, 1, 1, b'a', 0],             // a total of 0
        &[1, 2, 1, b'a', 1, 1, b'a', 1], // a word twice
        &[1, 1, 1, 0xff, 1],             // not UTF-8
        &[1, 0, 0],                      // a byte too many
    ];
    for snapshot in bad {
        assert!(plugin("{}").restore(snapshot).is_err(), "{snapshot:?}");
    }
}

#[test]
fn many_words_agree_with_a_plain_map() {
    // A linear congruential generator (Knuth's MMIX constants) as a source of words.
    let mut seed = 1_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut expected = std::collections::HashMap::<String, i64>::new();
    let mut plugin = plugin(r#"{ "mode": "complete" }"#);
    let mut output = None;
    for _ in 0..20 {
        let lines: Vec<String> =
            (0..500).map(|_| format!("{} w{} {}", next() % 7, next() % 5000, next() % 50)).collect();
        for word in lines.iter().flat_map(|line| line.split(' ')) {
            *expected.entry(word.to_string()).or_default() += 1;
        }
        output = Some(apply(&mut plugin, &lines.iter().map(String::as_str).collect::<Vec<_>>()));
    }
    let output = output.unwrap();
    let totals = totals(&output);
    assert_eq!(totals.len(), expected.len());
    assert!(totals.iter().all(|(word, total)| expected[*word] == *total));
}

#[test]
fn keys_and_choices_are_named() {
    let error = |config| testing::aggregate::<WordCount>(config, &testing::any_schema()).err().unwrap().to_string();
    assert_eq!(error(r#"{ "mode": "all" }"#), "`mode`: unknown variant `all`, expected `update` or `complete`");
    assert_eq!(
        error(r#"{ "max_word": 1 }"#),
        "unknown key `max_word`; did you mean `max_words`? (the keys are `column`, `mode`, `split`, `lowercase`, `max_words`, \
         `max_bytes`)"
    );
}
