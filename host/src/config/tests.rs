//! What a person sees of broken files, and what becomes of right ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use acequia_connector_api::{ByteSize, Span};

use super::test_connectors::registry;
use super::*;

/// Every table and nearly every key.
pub(crate) const FULL: &str = r#"
description = "all of it"

[source]
type = "lines"
path = "in.txt"
format = "text"
wait = "20ms"
csv = { delimiter = ";" }

[[transform]]
plugin = "even-filter"
config = { column = "value", deep = { at = 2020-04-13T12:09:37Z } }
limits = { memory = "16MiB", time = "1s", output = 1000 }

[[transform]]
plugin = "./mine/even-filter.wasm"
grants = { random = true, environment = ["A"], network = ["h:1", "*"], directories = [{ path = "/x", guest = "x" }] }

[[transform]]
plugin = "even-filter"
name = "last"

[[sink]]
type = "lines"
path = "out.txt"
token = { env = "TOKEN" }
columns = { a = "b" }

[[sink]]
type = "null"

[[sink]]
type = "lines"
path = "out2.txt"

[errors]
on_error = "skip"
[errors.dead_letter]
type = "lines"
path = "dead.txt"

[delivery]
checkpoint_interval = "5s"
tasks = 2
batch = { rows = 100, wait = "1s" }
in_flight = 8
"#;

fn env() -> Env {
    let pairs = [("ROWS", "5"), ("TEXT", "abc"), ("SECRET", "hunter2"), ("NONE", "")];
    Env::Fixed(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
}

fn parse_text(text: &str) -> Result<PipelineConfig, Diagnostics> {
    parse(text, Path::new("pipelines/seq.toml"), &registry(), &env())
}

/// A pipeline whose file lies in that folder.
pub(crate) fn config_in(folder: &Path, text: &str) -> Result<PipelineConfig, Diagnostics> {
    parse(text, &folder.join("seq.toml"), &registry(), &env())
}

fn errors(text: &str) -> String {
    parse_text(text).expect_err("a broken file").render(false)
}

#[test]
fn a_full_file() {
    let config = parse_text(FULL).unwrap();
    assert_eq!(config.name, "seq");
    assert_eq!(config.description.as_deref(), Some("all of it"));
    assert_eq!(config.base(), Path::new("pipelines"));
    assert_eq!(config.source.spec.type_name(), "lines");
    assert_eq!(&config.text[config.source.place.clone()], "[source]");
    let ids: Vec<&str> = config.transforms.iter().map(|stage| stage.id.as_str()).collect();
    assert_eq!(ids, ["even-filter", "even-filter-2", "last"]);
    let first = &config.transforms[0];
    assert_eq!(first.config.to_string(), r#"{"column":"value","deep":{"at":"2020-04-13T12:09:37Z"}}"#);
    assert_eq!(&config.text[first.plugin_place.clone()], "\"even-filter\"");
    assert_eq!(&config.text[first.config_places["deep.at"].clone()], "at");
    let limits = Limits { memory: ByteSize(16 << 20), time: Span(Duration::from_secs(1)), output: ByteSize(1000) };
    assert_eq!(first.limits, limits);
    assert_eq!(first.grants, Grants::default());
    assert_eq!(config.transforms[1].grants.network, ["h:1", "*"]);
    assert_eq!(config.transforms[2].config, serde_json::json!({}));
    let ids: Vec<&str> = config.sinks.iter().map(|stage| stage.id.as_str()).collect();
    assert_eq!(ids, ["lines", "null", "lines-2"]);
    assert_eq!(config.errors.on_error, OnError::Skip);
    assert_eq!(config.errors.dead_letter.as_ref().unwrap().id, "dead-letter");
    assert_eq!(config.delivery.batch.rows, 100);
    assert_eq!(config.delivery.batch.bytes, ByteSize(8 << 20));
    assert_eq!((config.delivery.tasks, config.delivery.in_flight), (2, 8));
}

#[test]
fn the_smallest_file() {
    let text = "\u{feff}[source]\r\ntype = \"count\"\r\n\r\n[[sink]]\r\ntype = \"null\"\r\n";
    let config = parse_text(text).unwrap();
    assert_eq!(&config.text[config.sinks[0].place.clone()], "[[sink]]");
    assert_eq!(config.errors.on_error, OnError::DeadLetter);
    assert!(config.errors.dead_letter.is_none());
    assert_eq!(config.delivery, DeliveryConfig::default());
}

#[test]
fn hashes_tell_what_changed() {
    let hashes = |text: &str| {
        let config = parse_text(text).unwrap();
        let mut hashes = vec![config.source.hash];
        hashes.extend(config.transforms.into_iter().map(|stage| stage.hash));
        hashes.extend(config.sinks.into_iter().map(|stage| stage.hash));
        hashes
    };
    let base = hashes(FULL);
    assert_eq!(base, hashes(&format!("# comment\n{}", FULL.replace(" = ", "="))));
    let changed = |from: &str, to: &str| -> Vec<usize> {
        let other = hashes(&FULL.replace(from, to));
        (0..base.len()).filter(|index| base[*index] != other[*index]).collect()
    };
    assert_eq!(changed("column = \"value\"", "column = \"v\""), [1]);
    assert_eq!(changed("random = true", "random = false"), [2]);
    assert_eq!(changed("\"out2.txt\"", "\"out3.txt\""), [6]);
    assert_eq!(changed("in.txt", "${TEXT}"), [0]);
    assert_eq!(changed("in.txt", "in.${X:-txt}"), [] as [usize; 0]);
}

#[test]
fn variables_in_any_place() {
    let config = parse_text(
        "[source]\ntype = \"${KIND:-count}\"\nrows = \"${ROWS}\"\nper_second = \"${RATE:-2.5}\"\nlisten = \"${L:-true}\"\n\
         [[transform]]\nplugin = \"p\"\nconfig = { a = [{ b = \"${ROWS} $${ROWS}\" }] }\n[[sink]]\ntype = \"null\"\n",
    )
    .unwrap();
    let debug = format!("{:?}", config.source.spec);
    assert_eq!(debug, "Resolved(Count { rows: Some(5), per_second: Some(2.5), listen: true, port: None })");
    assert_eq!(config.transforms[0].config.to_string(), r#"{"a":[{"b":"5 ${ROWS}"}]}"#);
}

#[test]
fn without_an_environment_what_hangs_on_it_is_not_checked() {
    let path = Path::new("seq.toml");
    let none = |text: &str| parse(text, path, &registry(), &Env::None);
    let unknown = "[source]\ntype = \"lines\"\npath = \"${A}\"\nformat = \"${B}\"\nwait = \"${C}\"\n\
                   csv = { delimiter = \"${D}\" }\n[[sink]]\ntype = \"lines\"\npath = \"${E}/\"\nlargest = \"${F}MiB\"\n\
                   nodes = [\"${G}\"]\n[delivery]\ntasks = \"${H}\"\ncheckpoint_interval = \"${I}ms\"\n";
    none(unknown).unwrap();
    // The same with values that can't be right.
    let wrong = none(&unknown.replace("${G}", "g").replace("${E}", "e")).unwrap_err();
    assert_eq!(wrong.0.len(), 1, "{wrong}");
    let wrong = none(&unknown.replace("${I}ms", "ms")).unwrap_err();
    assert_eq!(wrong.0.len(), 1, "{wrong}");
    let wrong = none(&unknown.replace("\"lines\"\npath = \"${A}\"", "\"${KIND}\"\npath = \"${A}\"")).unwrap_err();
    insta::assert_snapshot!("connector_that_is_not_known", wrong);
    // A default is a value like any other.
    let wrong = none(&unknown.replace("${H}", "${H:-x}")).unwrap_err();
    assert_eq!(wrong.0.len(), 1, "{wrong}");
}

#[test]
fn what_a_variable_holds_is_not_shown() {
    let text = "[source]\ntype = \"lines\"\npath = \"x\"\nformat = \"${SECRET}\"\nwait = \"${SECRET}\"\n[[sink]]\ntype = \"null\"\n";
    let found = parse_text(text).unwrap_err();
    assert_eq!(found.0.len(), 2);
    for shown in [found.render(false), found.summary(), serde_json::to_string(&found).unwrap()] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("${SECRET}"), "{shown}");
    }
}

#[test]
fn a_secret_in_the_file_is_not_shown() {
    let text = "[source]\ntype = \"count\"\n[[sink]]\ntype = \"lines\"\npath = 1\ntokn = \"hunter2\"\n";
    let found = parse_text(text).unwrap_err();
    assert!(!found.render(false).contains("hunter2"), "{found}");
    assert!(!format!("{found:?}").contains("hunter2"));
}

#[test]
fn unreadable_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.toml");
    let load = || {
        load(&path, &registry(), &Env::None)
            .unwrap_err()
            .render(false)
            .replace(&folder.path().display().to_string(), "FOLDER")
    };
    insta::assert_snapshot!("vanished_file", load());
    std::fs::write(&path, b"[source]\ntype = \"caf\xe9\"\n").unwrap();
    insta::assert_snapshot!("not_utf8", load());
    std::fs::write(&path, "#".repeat(5 << 20)).unwrap();
    insta::assert_snapshot!("too_large", load());
}

#[test]
fn two_pipelines_on_one_port() {
    let text = "[source]\ntype = \"count\"\nport = 9999\nlisten = true\n[[sink]]\ntype = \"null\"\n";
    let config = |name: &str| parse(text, Path::new(name), &registry(), &env()).unwrap();
    let (a, b) = (config("a.toml"), config("b.toml"));
    let found: Vec<_> = conflicts(&[&a, &b]).into_iter().map(|(_, diagnostic)| diagnostic).collect();
    insta::assert_snapshot!("two_pipelines_on_one_port", Diagnostics(found));
    assert!(conflicts(&[&a]).is_empty());
}

/// One broken file a line: each becomes a snapshot of what a person sees.
macro_rules! broken {
    ($($name:ident: $text:expr;)+) => {
        $(#[test]
        fn $name() {
            insta::assert_snapshot!(stringify!($name), errors($text));
        })+
    };
}

broken! {
    empty_file: "# nothing here\n\n";
    syntax_no_quotes: "[source]\ntype = count\n\n[[sink]]\ntype = \"null\"\n";
    syntax_several: "[source\ntype = \"count\"\nrows = \n\n[[sink]]\ntype = \"null\"\ntype = \"null\"\n";
    syntax_open_string: "[source]\ntype = \"count\n\n[[sink]]\ntype = \"null\"\n";
    nul_byte: "[source]\ntype = \"co\0unt\"\n[[sink]]\ntype = \"null\"\n";
    unknown_key: "[source]\ntype = \"count\"\nrow = 5\n\n[[sink]]\ntype = \"null\"\n";
    unknown_key_without_a_near_one: "[source]\ntype = \"count\"\nx = 5\n\n[[sink]]\ntype = \"null\"\nx = 5\n";
    unknown_key_of_another_table: "[source]\ntype = \"count\"\nbatch = { rows = 5 }\n\n[[sink]]\ntype = \"null\"\n";
    unknown_key_below: "[source]\ntype = \"count\"\n\n[[sink]]\ntype = \"null\"\n\n[delivery]\nbatch = { row = 5 }\n";
    unknown_table: "[source]\ntype = \"count\"\n\n[[sinks]]\ntype = \"null\"\n";
    wrong_type: "[source]\ntype = \"count\"\nrows = \"many\"\n\n[[sink]]\ntype = \"null\"\n";
    negative_number: "[source]\ntype = \"count\"\nrows = -5\nport = 70000\n\n[[sink]]\ntype = \"null\"\n";
    unknown_connector: "[source]\ntype = \"cuont\"\n\n[[sink]]\ntype = \"kafka\"\n";
    sink_as_source: "[source]\ntype = \"null\"\n\n[[sink]]\ntype = \"count\"\n";
    misspelt_type: "[source]\ntpye = \"count\"\n\n[[sink]]\n";
    missing_keys: "[source]\ntype = \"lines\"\n\n[[sink]]\ntype = \"null\"\n";
    missing_key_below: "[source]\ntype = \"lines\"\npath = \"x\"\nformat = \"text\"\ncsv = {}\n\n[[sink]]\ntype = \"null\"\n";
    unknown_value: "[source]\ntype = \"lines\"\npath = \"x\"\nformat = \"jason\"\n\n[[sink]]\ntype = \"null\"\n";
    no_sink: "[source]\ntype = \"count\"\n";
    no_source: "[[sink]]\ntype = \"null\"\n";
    two_sources: "[[source]]\ntype = \"count\"\n\n[[source]]\ntype = \"count\"\n\n[[sink]]\ntype = \"null\"\n";
    single_sink_table: "[source]\ntype = \"count\"\n\n[sink]\ntype = \"null\"\n";
    source_is_a_string: "source = \"count\"\nsink = \"null\"\n";
    failed_check: "[source]\ntype = \"count\"\nper_second = 0.0\n\n[[sink]]\ntype = \"null\"\n";
    failed_check_of_a_table: "[source]\ntype = \"count\"\n\n[[sink]]\ntype = \"lines\"\npath = \"x/\"\n";
    two_transforms_of_one_name: "[source]\ntype = \"count\"\n\n[[transform]]\nplugin = \"a\"\nname = \"n\"\n\n[[transform]]\nplugin = \"b\"\nname = \"n\"\n\n[[sink]]\ntype = \"null\"\n";
    transform_without_plugin: "[source]\ntype = \"count\"\n\n[[transform]]\nplugn = \"a\"\nconfig = 5\n\n[[sink]]\ntype = \"null\"\n";
    config_that_json_can_not_hold: "[source]\ntype = \"count\"\n\n[[transform]]\nplugin = \"a\"\nconfig = { a = [1, nan] }\n\n[[sink]]\ntype = \"null\"\n";
    limits_and_grants: "[source]\ntype = \"count\"\n\n[[transform]]\nplugin = \"a\"\nlimits = { memory = \"64\", time = 5, output = \"1MiB\" }\ngrants = { network = \"x\", randm = true }\n\n[[sink]]\ntype = \"null\"\n";
    limits_out_of_range: "[source]\ntype = \"count\"\n\n[[transform]]\nplugin = \"a\"\nlimits = { memory = \"1KiB\", time = \"0s\" }\ngrants = { network = [\"host\"] }\n\n[[sink]]\ntype = \"null\"\n\n[delivery]\ntasks = 0\n";
    on_error: "[source]\ntype = \"count\"\n\n[[sink]]\ntype = \"null\"\n\n[errors]\non_error = \"deadletter\"\n[errors.dead_letter]\ntype = \"lines\"\n";
    secret_of_a_wrong_form: "[source]\ntype = \"count\"\n\n[[sink]]\ntype = \"lines\"\npath = \"x\"\ntoken = { environment = \"A\" }\n";
    unset_variable: "[source]\ntype = \"lines\"\npath = \"in/${FOLDR}/x\"\nformat = \"text\"\n\n[[sink]]\ntype = \"lines\"\npath = \"${}/${x\"\n";
    unset_variables_have_no_consequences: "[source]\ntype = \"count\"\nrows = \"${A}\"\nper_second = \"${B}\"\n\n[[sink]]\ntype = \"${C}\"\n";
    variable_of_a_wrong_type: "[source]\ntype = \"count\"\nrows = \"${TEXT}\"\nport = \"${NONE}\"\n\n[[sink]]\ntype = \"null\"\n";
    two_sinks_on_one_file: "[source]\ntype = \"count\"\n\n[[sink]]\ntype = \"lines\"\npath = \"x\"\n\n[[sink]]\ntype = \"lines\"\npath = \"x\"\n";
    everything_at_once: "descripton = 5\n\n[source]\ntype = \"count\"\nrow = 5\nper_second = \"fast\"\n\n[[transform]]\nplugin = 5\n\n[[sink]]\ntype = \"lines\"\nnodes = [\"a:1\", 5]\n\n[delivery]\ntask = 1\n";
    not_ascii: "[source]\ntype = \"count\"\n\"zeilen–größe\" = \"日本\"\n\n[[sink]]\ntype = \"null\"\n";
    crlf: "[source]\r\ntype = \"count\"\r\nrow = 5\r\n\r\n[[sink]]\r\ntype = \"null\"\r\n";
}

#[test]
fn bad_names() {
    for (name, good) in
        [("a.b_c-1.toml", true), ("My Pipeline.toml", false), (".toml", false), ("ä.toml", false), ("-a.toml", false)]
    {
        assert_eq!(pipeline_name(Path::new(name)).is_ok(), good, "{name}");
    }
    let text = "[source]\ntype = \"count\"\n\n[[sink]]\ntype = \"null\"\n";
    let found = parse(text, Path::new("pipelines/my pipeline.toml"), &registry(), &env()).unwrap_err();
    insta::assert_snapshot!("bad_name", found);
}

#[test]
fn ids_make_way_for_names_that_were_given() {
    let text = "[source]\ntype = \"count\"\n[[transform]]\nplugin = \"a\"\n[[transform]]\nplugin = \"x y\"\n\
                [[transform]]\nplugin = \"b\"\nname = \"a\"\n[[transform]]\nplugin = \"a\"\n[[sink]]\ntype = \"null\"\n";
    let config = parse_text(text).unwrap();
    let ids: Vec<&str> = config.transforms.iter().map(|stage| stage.id.as_str()).collect();
    assert_eq!(ids, ["a-2", "x-y", "a", "a-3"]);
}

proptest::proptest! {
    /// Whatever is in the file: an answer, and its places are in the file.
    #[test]
    fn no_text_is_too_strange(text in "(\\[\\[?(source|sink|transform|errors)\\]?\\]\n|[a-z]{1,3} = |type = \"(count|lines|null)\"\n|[\"'\\[\\]{}=.,$#\n\r\t\u{0}-\u{7}0-9äß]){0,30}") {
        let _ = parse(&text, Path::new("a.toml"), &registry(), &Env::Fixed(BTreeMap::new())).map_err(|found| {
            assert!(!found.is_empty());
            found.render(false)
        });
    }
}
