use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::CsvOptions;

/// A frame that owns its bytes.
#[derive(Clone, Debug, PartialEq)]
struct Owned {
    record: Vec<u8>,
    line: u64,
    start: u64,
    end: u64,
    error: Option<String>,
    header: bool,
    resume: Resume,
}

impl From<Frame<'_>> for Owned {
    fn from(frame: Frame<'_>) -> Self {
        let Frame { record, line, start, end, error, header, resume, .. } = frame;
        assert_eq!(end, resume.offset);
        Owned { record: record.to_vec(), line, start, end, error, header, resume }
    }
}

fn options(format: Format) -> FormatOptions {
    FormatOptions::new(format)
}

/// All frames of an input that is fed in pieces which end at `cuts`.
fn frames_from(format: Format, input: &[u8], max_record: usize, from: Resume, cuts: &[usize]) -> Vec<Owned> {
    let mut framer = Framer::resume(&options(format), max_record, from);
    let mut frames: Vec<Owned> = Vec::new();
    let mut each = |frame: Frame<'_>| frames.push(frame.into());
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    let mut done = from.offset as usize;
    for cut in cuts.into_iter().filter(|cut| *cut >= from.offset as usize) {
        framer.feed(&input[done..cut], &mut each);
        done = cut;
    }
    framer.finish(&mut each);
    frames
}

fn frames(format: Format, input: impl AsRef<[u8]>) -> Vec<Owned> {
    frames_from(format, input.as_ref(), 1 << 20, Resume::default(), &[])
}

fn records(format: Format, input: impl AsRef<[u8]>) -> Vec<String> {
    frames(format, input).into_iter().map(|frame| String::from_utf8(frame.record).unwrap()).collect()
}

/// The line, and whether the record is JSON.
fn verdicts(input: &str) -> Vec<(u64, bool)> {
    let good = |frame: &Owned| {
        frame.error.is_none() && serde_json::from_slice::<Value>(&frame.record).is_ok_and(|value| value.is_object())
    };
    frames(Format::Json, input).iter().map(|frame| (frame.line, good(frame))).collect()
}

#[test]
fn lines_end_at_lf_and_crlf_and_at_the_end() {
    assert_eq!(records(Format::Text, "a\r\nb\n\n\rc\r\r\nd"), ["a", "b", "", "\rc\r", "d"]);
    assert_eq!(records(Format::Text, "a\n"), ["a"]);
    assert_eq!(records(Format::Text, "\u{feff}a\n\u{feff}b"), ["a", "\u{feff}b"]);
    assert_eq!(records(Format::Text, "a\0b\n"), ["a\0b"]);
    assert!(frames(Format::Text, "").is_empty());
    assert!(frames(Format::Text, "\u{feff}").is_empty());
    let all = frames(Format::Text, "\u{feff}ab\r\nc");
    assert_eq!((all[0].line, all[0].start, all[0].end), (1, 3, 7));
    assert_eq!((all[1].line, all[1].start, all[1].end), (2, 7, 8));
}

#[test]
fn a_line_of_10_mb_is_an_error_and_the_next_one_is_fine() {
    let long = "x".repeat(10 << 20);
    for (format, input) in [
        (Format::Text, format!("a\n{long}\nb\n")),
        (Format::Csv, format!("a\n{long}\nb\n")),
        (Format::Csv, format!("a\n\"{long}\"\nb\n")),
        (Format::Json, format!("{{}}\n{long}\n{{}}\n")),
        (Format::Json, format!("{{}}\n{{\"a\":\"{long}\"}}\n{{}}\n")),
        (Format::Json, format!("[\n{{\"a\":\"{long}\"}},\n{{}}]\n")),
    ] {
        let cuts: Vec<usize> = (0..input.len()).step_by(64 << 10).collect();
        let all = frames_from(format, input.as_bytes(), 1 << 20, Resume::default(), &cuts);
        let bad: Vec<_> = all.iter().filter(|frame| frame.error.is_some()).collect();
        assert_eq!(bad.len(), 1, "{format}");
        assert_eq!(bad[0].line, 2);
        assert_eq!(bad[0].record.len(), PREFIX);
        let error = bad[0].error.as_deref().unwrap();
        assert!(error.contains("is longer than the limit of 1048576 bytes"), "{error}");
        assert_eq!(all.last().unwrap().line, 3);
        assert!(all.last().unwrap().error.is_none());
    }
}

#[test]
fn json_in_all_its_shapes() {
    let rows = ["{\"a\":1}", "{\"b\":[1,{\"c\":\"x]}\\\"\"}]}", "{}"];
    let values: Vec<Value> = rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect();
    let pretty: Vec<String> = values.iter().map(|value| serde_json::to_string_pretty(value).unwrap()).collect();
    let array = json!(values);
    for input in [
        rows.join("\n"),
        rows.join("\r\n") + "\r\n",
        rows.join("\n\n\n") + "\n",
        rows.concat(),
        rows.join(" "),
        format!("[{}]", rows.join(",")),
        format!("[{}]", rows.join(",\n")),
        format!("[\n{}\n]\n", rows.join("\n,")),
        format!("[{},]", rows.join(",")),
        format!("[{}][{}, {}]", rows[0], rows[1], rows[2]),
        format!("\u{feff}{array}"),
        serde_json::to_string_pretty(&array).unwrap(),
        serde_json::to_string_pretty(&array).unwrap().replace('\n', "\r\n"),
        // Python's json.dumps(indent=0): nested objects start their lines in the first column too.
        serde_json::to_string_pretty(&array).unwrap().replace("\n ", "\n").replace("\n ", "\n"),
        pretty.join("\n"),
        pretty.concat(),
        format!("{}\n{}\n{}", rows[0], pretty[1].replace("\n ", "\n").replace("\n ", "\n"), rows[2]),
    ] {
        let found: Vec<Value> =
            records(Format::Json, &input).iter().map(|record| serde_json::from_str(record).unwrap()).collect();
        assert_eq!(found, values, "{input}");
    }
    assert!(frames(Format::Json, "").is_empty());
    assert!(frames(Format::Json, " \n[ ]\n").is_empty());
    assert_eq!(records(Format::Json, "[1, \"a,]b\", null,[2]]"), ["1", "\"a,]b\"", "null", "[2]"]);
    assert_eq!(records(Format::Json, "1 2\n\"x\"\n"), ["1 2", "\"x\""]);
}

#[test]
fn json_lines_have_numbers_and_ranges() {
    let all = frames(Format::Json, "[\n  {\"a\": 1},\n  {\n \"a\": 2}\n]");
    assert_eq!(
        all.iter().map(|frame| (frame.line, frame.start, frame.end)).collect::<Vec<_>>(),
        [(2, 4, 12), (3, 16, 26)]
    );
}

/// Ten rows, the third damaged, in the shapes that rows are written in: nine rows and one failure, at the third's line.
#[test]
fn a_broken_row_takes_no_other_along() {
    let damages: [(&str, &str); 12] = [
        ("no value", "{\"a\": , \"b\": [1, {\"c\": 2}]}"),
        ("no brace at the end", "{\"a\": 3, \"b\": [1, {\"c\": 2}]"),
        ("no bracket inside", "{\"a\": 3, \"b\": [1, {\"c\": 2}}"),
        ("a bracket too many", "{\"a\": 3, \"b\": [1, {\"c\": 2}]]}"),
        ("a string without an end", "{\"a\": 3, \"b\": [1, {\"c\": \"2}]}"),
        ("a key without quotes", "{a: 3, \"b\": [1, {\"c\": 2}]}"),
        ("a quote inside a string", "{\"a\": \"O\"Brien\", \"b\": 1}"),
        ("cut off after a colon", "{\"a\": 3, \"b\":"),
        ("cut off inside an array", "{\"a\": 3, \"b\": [1,"),
        ("cut off inside a string", "{\"a\": 3, \"b"),
        ("a NUL byte", "{\"a\": \0, \"b\": 1}"),
        ("a comma too many", "{\"a\": 3, \"b\": 1,}"),
    ];
    for (damage, third) in damages {
        let rows: Vec<String> =
            (1..=10)
                .map(|number| {
                    if number == 3 {
                        third.to_owned()
                    } else {
                        format!("{{\"a\": {number}, \"b\": [1, {{\"c\": 2}}]}}")
                    }
                })
                .collect();
        let shapes = [
            ("lines", rows.join("\n"), 0),
            ("lines with CRLF", rows.join("\r\n") + "\r\n", 0),
            ("an array, a row a line", format!("[\n{}\n]\n", rows.join(",\n")), 1),
            ("an indented array", format!("[\n  {}\n]\n", rows.join(",\n  ")), 1),
        ];
        for (shape, input, before) in shapes {
            let expected: Vec<_> = (1..=10).map(|number| (number + before, number != 3)).collect();
            assert_eq!(verdicts(&input), expected, "{damage} in {shape}");
        }
    }
}

#[test]
fn a_broken_row_on_many_lines_takes_no_other_along() {
    let good = |number: u64| format!("{{\n  \"a\": {number},\n  \"b\": [\n    {{\n      \"c\": 2\n    }}\n  ]\n}}");
    for (damage, third) in [
        ("no value", good(3).replace("3,", ",")),
        ("no brace at the end", good(3).trim_end_matches("\n}").to_owned()),
        ("no bracket inside", good(3).replace("  ]\n", "")),
        ("no brace inside", good(3).replace("    }\n", "")),
        ("a bracket too many", good(3).replace("]", "]]")),
        ("a string without an end", good(3).replace("\"c\": 2", "\"c\": \"2")),
    ] {
        let rows: Vec<String> = (1..=10).map(|number| if number == 3 { third.clone() } else { good(number) }).collect();
        let indented = format!("[\n{}\n]", rows.join(",\n")).replace('\n', "\n  ");
        for input in [rows.join("\n"), indented] {
            let bad: Vec<_> =
                verdicts(&input).iter().enumerate().filter(|(_, verdict)| !verdict.1).map(|(at, _)| at).collect();
            assert_eq!(bad, [2], "{damage}");
            assert_eq!(verdicts(&input).len(), 10, "{damage}");
        }
    }
}

#[test]
fn a_broken_object_does_not_turn_its_parts_into_rows() {
    assert_eq!(
        verdicts("{\"a\": [\n  {\"x\": 1},\n  {\"x\": oops\"},\n  {\"x\": 2}\n]}\n{\"a\": 2}"),
        [(1, false), (6, true)]
    );
    assert_eq!(verdicts("[{\"a\": {\"x\": 1}, {\"y\": 2}}, {\"a\": 3}]"), [(1, false), (1, true)]);
}

#[test]
fn an_array_without_an_end_is_told() {
    let all = frames(Format::Json, "[{\"a\": 1},\n{\"a\": 2}\n");
    assert_eq!(all.len(), 3);
    assert_eq!(all[2].error.as_deref(), Some("the array of rows has no end: the input is cut off"));
    assert!(frames_from(Format::Json, b"[{\"a\": 1},\n{\"a\": 2}\n", 100, all[2].resume, &[]).is_empty());
    // Where a row is cut off too, that row says it.
    assert_eq!(verdicts("[{\"a\": 1},\n{\"a\": "), [(1, true), (2, false)]);
}

#[test]
fn csv_records_and_their_header() {
    let all = frames(Format::Csv, "\u{feff}a,b\r\n\r\n1,\"x\r\ny\"\n\n2,\"\"\"\"");
    let found: Vec<_> =
        all.iter().map(|frame| (frame.line, frame.header, String::from_utf8_lossy(&frame.record))).collect();
    assert_eq!(found, [(1, true, "a,b".into()), (3, false, "1,\"x\r\ny\"".into()), (6, false, "2,\"\"\"\"".into())]);
    assert!(frames(Format::Csv, "\r\n\n\r").is_empty());
    let options = CsvOptions { header: false, delimiter: ';', quote: '\'', ..CsvOptions::default() };
    let mut seen = Vec::new();
    let mut framer = CsvFramer::new(&options, 100);
    framer.feed(b"'a\n';\"\n\"", &mut |frame| seen.push((frame.record.to_vec(), frame.header)));
    framer.finish(&mut |frame| seen.push((frame.record.to_vec(), frame.header)));
    assert_eq!(seen, [(b"'a\n';\"".to_vec(), false), (b"\"".to_vec(), false)]);
}

#[test]
fn a_quote_without_an_end_costs_one_line() {
    let found = frames(Format::Csv, "a,b\n1,2\n3,\"4\n5,6\n7,8\n");
    assert_eq!(found.iter().map(|frame| frame.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(found[2].error.as_deref(), Some("a quoted field that starts on this line has no end"));
    assert!(found.iter().filter(|frame| frame.error.is_some()).count() == 1);
    // The same where not the end of the input shows it but the limit, here 16 bytes.
    let found =
        frames_from(Format::Csv, b"a,b\n1,2\n3,\"4\n5,6\n7,8\n9,10\n11,12\n13,14\n", 16, Resume::default(), &[]);
    assert_eq!(found.iter().filter(|frame| frame.error.is_some()).map(|frame| frame.line).collect::<Vec<_>>(), [3]);
    assert_eq!(found.len(), 8);
}

#[test]
fn a_position_is_a_small_object() {
    let mark = frames(Format::Text, "a\n")[0].resume;
    assert_eq!(serde_json::to_value(mark).unwrap(), json!({ "offset": 2, "line": 2 }));
    let mark = frames(Format::Json, "[{}]")[0].resume;
    let stored = serde_json::to_value(mark).unwrap();
    assert_eq!(stored, json!({ "offset": 3, "line": 1, "column": 3, "array": true, "lines": true }));
    assert_eq!(serde_json::from_value::<Resume>(stored).unwrap(), mark);
}

/// Pieces from which nearly-JSON and nearly-CSV is made.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        "\"",
        "\\",
        ",",
        ":",
        "\n",
        "\r\n",
        "\r",
        " ",
        "  ",
        "x",
        "1",
        "\0",
        "\u{feff}",
        "é",
        "\"k\":",
        "{\"a\":1}",
        "{\"a\":1}\n",
        "{\"a\":",
        "{\"a\":[\n",
        "\n{",
        "\n  {",
        "null",
        "\"s\"",
        "a,b\n",
        "\"a\nb\",c",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes())
}

fn a_format() -> impl Strategy<Value = Format> {
    prop::sample::select(vec![Format::Text, Format::Json, Format::Csv])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn frames_do_not_depend_on_how_the_bytes_arrive(
        input in soup(),
        format in a_format(),
        max_record in prop::sample::select(vec![1usize, 3, 8, 20, 1 << 20]),
        cuts in prop::collection::vec(0usize..400, 0..40),
    ) {
        let whole = frames_from(format, &input, max_record, Resume::default(), &[]);
        let pieces = frames_from(format, &input, max_record, Resume::default(), &cuts);
        prop_assert_eq!(&whole, &pieces);
        let bytes: Vec<usize> = (0..input.len()).collect();
        prop_assert_eq!(&whole, &frames_from(format, &input, max_record, Resume::default(), &bytes));
    }

    #[test]
    fn every_mark_resumes(
        input in soup(),
        format in a_format(),
        max_record in prop::sample::select(vec![1usize, 3, 8, 20, 1 << 20]),
    ) {
        let all = frames_from(format, &input, max_record, Resume::default(), &[]);
        for (index, frame) in all.iter().enumerate() {
            let rest = frames_from(format, &input, max_record, frame.resume, &[]);
            prop_assert_eq!(&all[index + 1..], &rest[..], "after frame {}", index);
        }
        // The position of a framer that has had a part of the input.
        for cut in 0..=input.len() {
            let mut framer = Framer::new(&options(format), max_record);
            let mut before: Vec<Owned> = Vec::new();
            framer.feed(&input[..cut], &mut |frame| before.push(frame.into()));
            before.extend(frames_from(format, &input, max_record, framer.position(), &[]));
            prop_assert_eq!(&all, &before);
        }
    }

    #[test]
    fn frames_are_in_order_and_cover_everything_that_is_not_blank(input in soup(), format in a_format()) {
        let all = frames_from(format, &input, 1 << 20, Resume::default(), &[]);
        let mut at = 0usize;
        for frame in &all {
            prop_assert!(frame.start as usize >= at && frame.end >= frame.start);
            let between = String::from_utf8_lossy(&input[at..frame.start as usize]).into_owned();
            prop_assert!(between.chars().all(|character| "\u{feff}\r\n\t ,[]".contains(character)), "{:?}", between);
            let lines = input[..frame.start as usize].iter().filter(|byte| **byte == b'\n').count();
            prop_assert_eq!(frame.line, lines as u64 + 1);
            at = frame.end as usize;
        }
        let rest = String::from_utf8_lossy(&input[at..]).into_owned();
        prop_assert!(rest.chars().all(|character| "\u{feff}\r\n\t ,[]".contains(character)), "{:?}", rest);
    }

    #[test]
    fn valid_json_is_cut_into_its_values(
        values in prop::collection::vec(a_value(), 0..12),
        pretty in any::<bool>(),
        array in any::<bool>(),
        indent in 0usize..3,
    ) {
        let text = |value: &Value| {
            let text = if pretty { serde_json::to_string_pretty(value).unwrap() } else { value.to_string() };
            // Other depths of indentation than serde_json's two blanks.
            text.lines().map(|line| {
                let inner = line.trim_start();
                " ".repeat((line.len() - inner.len()) / 2 * indent) + inner
            }).collect::<Vec<_>>().join("\n")
        };
        let input = if array {
            text(&Value::from(values.clone()))
        } else {
            values.iter().map(text).collect::<Vec<_>>().join("\n")
        };
        let found: Vec<Value> = frames(Format::Json, &input)
            .iter()
            .map(|frame| serde_json::from_slice(&frame.record).unwrap())
            .collect();
        prop_assert_eq!(found, values);
    }
}

/// A JSON object.
fn a_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z\"\\\\{}\\[\\],:\n ]{0,6}".prop_map(Value::from),
    ];
    let any = scalar.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-c{\"]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::hash_map("[a-c]{1,2}", any, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
}
