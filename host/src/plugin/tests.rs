//! Whole transforms, with small guests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use acequia_connector_api::{Batch, ByteSize, ColumnType, Field, Origin, RowSchema, Span};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, RecordBatch, TimestampMicrosecondArray};

use super::testing::{FLOAT64, Guest, INT64, Pass, load, moods, moody, summing};
use super::*;
use crate::config::model::{Grants, Limits};
use crate::pipeline::transform::{Applied, Transform};

fn schema() -> RowSchema {
    RowSchema::closed(vec![
        Field::new("value", ColumnType::Int64, false),
        Field::new("timestamp", ColumnType::Timestamp, false),
    ])
}

/// Rows with these values, from the lines 100, 101, ... of `numbers.txt`.
fn batch(values: impl IntoIterator<Item = i64>) -> Batch {
    let values: Vec<i64> = values.into_iter().collect();
    let times = TimestampMicrosecondArray::from(values.iter().map(|value| value * 1000).collect::<Vec<_>>());
    let columns: Vec<arrow_array::ArrayRef> =
        vec![Arc::new(Int64Array::from(values)), Arc::new(times.with_timezone("UTC"))];
    let rows = RecordBatch::try_new(schema().to_arrow(), columns).unwrap();
    Batch::new(rows, Origin::run("numbers.txt".into(), 100))
}

fn values(applied: &Applied, column: &str) -> Vec<i64> {
    let rows = &applied.batch.rows;
    rows.column_by_name(column).map_or_else(Vec::new, |column| column.as_primitive::<Int64Type>().values().to_vec())
}

async fn try_start(
    plugin: &Arc<Plugin>,
    limits: Limits,
    grants: &Grants,
    snapshot: Option<&[u8]>,
) -> Result<PluginTransform, PluginError> {
    let options = StartOptions {
        pipeline: "numbers",
        stage: "even",
        config: &serde_json::json!({}),
        limits,
        grants,
        base: Path::new("/"),
        input: &schema(),
        snapshot,
    };
    plugin.start(options).await
}

async fn start(plugin: &Arc<Plugin>) -> PluginTransform {
    try_start(plugin, Limits::default(), &Grants::default(), None).await.unwrap()
}

/// `in + added = out + dropped + failed`.
fn balanced(rows: usize, applied: &Applied) {
    let out = applied.batch.len() as u64 + applied.dropped + applied.batch.failed.len() as u64;
    assert_eq!(rows as u64 + applied.added, out, "{applied:?}");
}

#[tokio::test]
async fn filters_whole_rows_and_knows_where_they_came_from() {
    let mut transform = start(&moody().load()).await;
    assert_eq!(*transform.schema(), schema());
    assert!(!transform.is_stateful());
    for length in [1, 7, 8, 9, 1000] {
        let applied = transform.apply(batch(100..100 + length)).await.unwrap();
        assert_eq!(values(&applied, "value"), (100..100 + length).filter(|value| value % 2 == 0).collect::<Vec<_>>());
        balanced(length as usize, &applied);
        assert_eq!(applied.batch.rows.schema(), schema().to_arrow());
    }
    let applied = transform.apply(batch(100..110)).await.unwrap();
    assert_eq!(applied.batch.origin.locate(2), (Some("numbers.txt".into()), Some(104)));
    let nothing = transform.apply(batch([1, 3])).await.unwrap();
    assert_eq!((nothing.batch.len(), nothing.dropped), (0, 2));
    assert_eq!(nothing.batch.rows.num_columns(), 2);
}

#[tokio::test]
async fn a_filter_that_keeps_all_copies_nothing() {
    let mut transform = start(&moody().load()).await;
    let input = batch([2, 4, 6]);
    let memory = |rows: &RecordBatch| rows.column(0).as_primitive::<Int64Type>().values().as_ptr();
    let before = memory(&input.rows);
    let applied = transform.apply(input).await.unwrap();
    assert_eq!(memory(&applied.batch.rows), before);
    assert!(matches!(applied.batch.origin, Origin::Segments(_)));
}

#[tokio::test]
async fn only_the_row_that_makes_it_trap_fails() {
    let mut transform = start(&moody().load()).await;
    let applied = transform.apply(batch((34..1000).chain([moods::TRAP]).chain(1000..1234))).await.unwrap();
    assert_eq!(values(&applied, "value"), (34..1234).filter(|value| value % 2 == 0).collect::<Vec<_>>());
    balanced(1201, &applied);
    let [failed] = &applied.batch.failed[..] else { panic!("{:?}", applied.batch.failed) };
    assert_eq!(failed.offset, Some(1066));
    insta::assert_snapshot!(
        failed.error,
        @"pipeline `numbers`, transform `even` (guest.wasm), row 1066 of numbers.txt: it trapped: `unreachable` was executed (a panic, an abort or a failed allocation); it said: panicked at src/lib.rs:7: unlucky"
    );
    assert_eq!(applied.batch.origin.locate(483), (Some("numbers.txt".into()), Some(1067)));
}

#[tokio::test]
async fn the_search_for_failing_rows_has_an_end() {
    let mut transform = start(&moody().load()).await;
    let applied = transform.apply(batch(std::iter::repeat_n(moods::TRAP, 4096))).await.unwrap();
    assert_eq!((applied.batch.len(), applied.batch.failed.len()), (0, 4096));
    // 64 halvings leave at most 65 parts.
    assert!(transform.replaced() <= 64 + 65, "{}", transform.replaced());
    let applied = transform.apply(batch([2])).await.unwrap();
    assert_eq!(values(&applied, "value"), [2]);
}

/// What it says about a batch with that value; and the next batch must go through.
async fn says(transform: &mut PluginTransform, value: i64) -> String {
    let applied = transform.apply(batch([2, value, 4])).await.unwrap();
    balanced(3, &applied);
    assert_eq!(applied.dropped, 0);
    let next = transform.apply(batch([6])).await.unwrap();
    assert_eq!(values(&next, "value"), [6]);
    let messages: std::collections::BTreeSet<String> = applied.batch.failed.into_iter().map(|row| row.error).collect();
    messages.into_iter().collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn every_way_to_fail_is_named_and_does_no_harm() {
    let limits = Limits { output: ByteSize(4096), time: Span(Duration::from_millis(100)), ..Limits::default() };
    let mut transform = try_start(&moody().load(), limits, &Grants::default(), None).await.unwrap();
    let mut all = Vec::new();
    for value in [
        moods::LOOP,
        moods::MEMORY,
        moods::RECURSION,
        moods::ERROR,
        moods::WRONG_LENGTH,
        moods::OUTSIDE_MEMORY,
        moods::HUGE,
        moods::RANDOM,
        moods::STDERR,
    ] {
        all.push(says(&mut transform, value).await);
    }
    insta::assert_snapshot!(all.join("\n"));
}

#[tokio::test]
async fn an_endless_loop_does_not_hold_the_thread() {
    let limits = Limits { time: Span(Duration::from_millis(200)), ..Limits::default() };
    let mut transform = try_start(&moody().load(), limits, &Grants::default(), None).await.unwrap();
    let turns = Arc::new(AtomicU64::new(0));
    // One thread for both: the other task gets its turns only if the guest yields.
    let other = tokio::spawn({
        let turns = turns.clone();
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let applied = transform.apply(batch([moods::LOOP])).await.unwrap();
    other.abort();
    assert!(turns.load(Ordering::Relaxed) > 5);
    assert_eq!(applied.batch.failed.len(), 1);
}

#[tokio::test]
async fn what_is_granted_is_there() {
    let grants = Grants { random: true, ..Grants::default() };
    let mut transform = try_start(&moody().load(), Limits::default(), &grants, None).await.unwrap();
    let applied = transform.apply(batch([2, moods::RANDOM, 4])).await.unwrap();
    assert_eq!(values(&applied, "value"), [2, 4]);
    let missing = crate::config::model::DirectoryGrant {
        path: PathBuf::from("nowhere/at/all"),
        guest: "/data".to_owned(),
        write: false,
    };
    let grants = Grants { directories: vec![missing], ..Grants::default() };
    let error = try_start(&moody().load(), Limits::default(), &grants, None).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::Grant);
    assert!(error.to_string().contains("the granted folder /nowhere/at/all can't be opened"), "{error}");
}

#[tokio::test]
async fn a_row_that_the_plugin_rejects_is_a_failed_row() {
    let mut transform = start(&moody().load()).await;
    let applied = transform.apply(batch([1, moods::FAIL_FIRST])).await.unwrap();
    assert_eq!(transform.replaced(), 0);
    assert_eq!((applied.batch.len(), applied.dropped), (0, 1));
    assert_eq!(applied.batch.failed[0].error, "the first row is not to its taste");
    assert_eq!(applied.batch.failed[0].offset, Some(100));
    balanced(2, &applied);
}

#[tokio::test]
async fn failed_rows_travel_with_the_batch() {
    let mut transform = start(&moody().load()).await;
    let earlier = batch([5]).fail(0, "of an earlier stage");
    let mut input = batch([1, moods::FAIL_FIRST]);
    input.failed.push(earlier.clone());
    let applied = transform.apply(input).await.unwrap();
    assert_eq!(applied.batch.failed.len(), 2);
    assert_eq!(applied.batch.failed[0], earlier);
    let only_failures = transform.apply(Batch::of_failures(vec![earlier.clone()])).await.unwrap();
    assert_eq!(only_failures.batch.failed, [earlier]);
}

#[tokio::test]
async fn state_survives_in_snapshots() {
    let plugin = summing().load();
    let mut transform = start(&plugin).await;
    assert!(transform.is_stateful());
    assert_eq!(transform.tick_every(), Some(Duration::from_secs(1)));
    assert_eq!(*transform.schema(), RowSchema::closed(vec![Field::new("sum", ColumnType::Int64, false)]));
    let applied = transform.apply(batch(0..10)).await.unwrap();
    assert_eq!(values(&applied, "sum"), [45]);
    assert_eq!((applied.added, applied.dropped), (1, 10));
    balanced(10, &applied);
    let snapshot = transform.snapshot().await.unwrap().unwrap();
    assert_eq!(snapshot, 45i64.to_le_bytes());
    let mut again = try_start(&plugin, Limits::default(), &Grants::default(), Some(&snapshot)).await.unwrap();
    assert_eq!(values(&again.apply(batch([5])).await.unwrap(), "sum"), [50]);
    assert_eq!(values(&again.tick(1_000_000).await.unwrap(), "sum"), [50]);
    let error = try_start(&plugin, Limits::default(), &Grants::default(), Some(b"?")).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::Restore);
    insta::assert_snapshot!(
        error,
        @"pipeline `numbers`, transform `even` (guest.wasm): the stored state can't be used: `restore` failed: a snapshot has 8 bytes"
    );
}

#[tokio::test]
async fn state_is_lost_with_the_instance_unless_it_is_careful() {
    let plugin = summing().load();
    let mut transform = start(&plugin).await;
    let error = transform.apply(batch([1, moods::TRAP, 2])).await.unwrap_err();
    assert!(error.state_lost);
    insta::assert_snapshot!(
        error,
        @"pipeline `numbers`, transform `even` (guest.wasm): rows 100 to 102 of numbers.txt: it trapped: `unreachable` was executed (a panic, an abort or a failed allocation)"
    );
    assert!(transform.apply(batch([1])).await.unwrap_err().state_lost, "it does not go on with empty state");

    let mut transform = start(&plugin).await;
    transform.set_careful(true);
    transform.apply(batch([1000])).await.unwrap();
    let input: Vec<i64> = (0..100).map(|value| if value % 40 == 7 { moods::TRAP } else { value }).collect();
    let applied = transform.apply(batch(input.clone())).await.unwrap();
    balanced(100, &applied);
    let failed: Vec<_> = applied.batch.failed.iter().map(|row| row.offset).collect();
    // The 13 at its own place too.
    assert_eq!(failed, [Some(107), Some(113), Some(147), Some(187)]);
    let expected = 1000 + input.iter().filter(|value| **value != moods::TRAP).sum::<i64>();
    assert_eq!(*values(&applied, "sum").last().unwrap(), expected);
    assert!(transform.replaced() > 0);
}

#[tokio::test]
async fn a_tick_that_fails() {
    let plugin = summing().load();
    let mut transform = start(&plugin).await;
    transform.set_careful(true);
    transform.apply(batch([7])).await.unwrap();
    assert_eq!(transform.tick(-1).await.unwrap().batch.len(), 0);
    assert_eq!(transform.replaced(), 1);
    assert_eq!(values(&transform.tick(1).await.unwrap(), "sum"), [7]);
    transform.set_careful(false);
    assert!(transform.tick(-1).await.unwrap_err().state_lost);
}

fn refusing(plan: impl FnOnce(&mut Guest) -> u32) -> Guest {
    let mut guest = Guest::default();
    let plan = plan(&mut guest);
    guest.main = format!(
        r#"(func (export "configure") (param i32 i32 i32 i32 i32) (result i32) (i32.const {plan}))
        (func (export "apply") (param i32 i32 i32) (result i32) unreachable)"#
    );
    guest
}

#[tokio::test]
async fn a_configuration_or_a_plan_that_is_wrong() {
    let start = async |guest: Guest| try_start(&guest.load(), Limits::default(), &Grants::default(), None).await;
    let error = start(refusing(|guest| guest.configure_error("`column` is missing"))).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::Configure);
    insta::assert_snapshot!(error, @"pipeline `numbers`, transform `even` (guest.wasm): `configure` failed: `column` is missing");
    let mut trapping = refusing(|_| 0);
    trapping.main = trapping.main.replace("(i32.const 0)", "unreachable");
    let error = start(trapping).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::Configure);
    let unknown = refusing(|guest| guest.plan(&[("valeu", INT64, false)], &[], Pass::Every, 0));
    let error = start(unknown).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::Plan);
    insta::assert_snapshot!(
        error,
        @"pipeline `numbers`, transform `even` (guest.wasm): there is no column `valeu` (did you mean `value`?); there are: `value`, `timestamp`"
    );
    let twice = refusing(|guest| guest.plan(&[], &[("a", INT64, false), ("a", FLOAT64, false)], Pass::Every, 0));
    assert!(start(twice).await.unwrap_err().to_string().ends_with("the plugin adds `a` twice"));
    let limits = Limits { memory: ByteSize(65536), ..Limits::default() };
    let error = try_start(&moody().load(), limits, &Grants::default(), None).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::Start);
    insta::assert_snapshot!(
        error,
        @"pipeline `numbers`, transform `even` (guest.wasm): no instance can be made: it wanted 131072 bytes of memory: the limit is 64KiB (raise limits.memory if it needs more)"
    );
}

#[test]
fn a_component_that_is_no_plugin_of_ours() {
    let text = moody().build();
    let old =
        load(&text.replace("acequia:plugin/transform@0.1.0\" (instance", "acequia:plugin/transform@0.0.9\" (instance"));
    insta::assert_snapshot!(
        old.unwrap_err(),
        @"plugin guest.wasm: it was built for contract 0.0.9, this host speaks 0.1.x: rebuild it with this host's wit/plugin.wit"
    );
    assert_eq!(load(&text.replace("@0.1.0", "@0.1.3")).unwrap().inspect().contract, "0.1.3");
    let import = r#"(import "wasi:http/types@0.2.0" (instance (export "f" (func))))"#;
    let strange = load(&text.replacen("  (alias", &format!("  {import}\n  (alias"), 1));
    insta::assert_snapshot!(
        strange.unwrap_err(),
        @"plugin guest.wasm: it imports `wasi:http/types@0.2.0`, which this host does not offer: build it without that"
    );
    assert!(load("(component)").unwrap_err().to_string().contains("it is a component, but no plugin"));
}

#[tokio::test]
async fn a_plugin_of_our_version_with_other_types() {
    let plugin = load(&summing().build().replace("\"now\" s64", "\"now\" u64")).unwrap();
    let error = try_start(&plugin, Limits::default(), &Grants::default(), None).await.unwrap_err();
    assert_eq!(error.kind, PluginErrorKind::File);
    assert!(error.to_string().contains("its types are not those of contract 0.1.0: rebuild it"), "{error}");
}

#[tokio::test]
async fn an_instance_that_has_grown_is_replaced_in_time() {
    // 2 pages of 64 KiB at rest, 16 allowed. A batch with GROW takes 12 more: a second one would be over the limit.
    let limits = Limits { memory: ByteSize(16 << 16), ..Limits::default() };
    let mut transform = try_start(&moody().load(), limits, &Grants::default(), None).await.unwrap();
    for _ in 0..3 {
        let applied = transform.apply(batch([2, moods::GROW])).await.unwrap();
        assert_eq!((values(&applied, "value"), applied.batch.failed.len()), (vec![2], 0));
    }
    assert_eq!(transform.replaced(), 0, "not counted as a failure");
    let applied = transform.apply(batch([2, moods::GROW, moods::GROW])).await.unwrap();
    assert_eq!(applied.batch.len() + applied.batch.failed.len() + applied.dropped as usize, 3);
    assert!(transform.replaced() > 0);
}

#[test]
fn inspects() {
    let info = moody().load().inspect();
    assert_eq!((info.stateful, info.ticking, info.contract.as_str()), (false, false, "0.1.0"));
    assert_eq!(info.exports, ["acequia:plugin/transform@0.1.0"]);
    assert_eq!(info.grants, ["random"]);
    assert!(info.imports.contains(&"wasi:random/random@0.2.3".to_owned()), "{:?}", info.imports);
    let info = summing().load().inspect();
    assert!(info.stateful && info.ticking && info.grants.is_empty());
}

#[test]
fn compiles_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("compiled");
    let options = HostOptions { cache: Some(cache.clone()) };
    let text = moody().build();
    let first = Host::new(&options).unwrap();
    let plugin = first.load_bytes(Path::new("a.wasm"), text.as_bytes()).unwrap();
    let same = first.load_bytes(Path::new("b.wasm"), text.as_bytes()).unwrap();
    assert!(std::ptr::eq(plugin.compiled(), same.compiled()), "two files with one content share it");
    assert_eq!((plugin.name(), same.name()), ("a.wasm", "b.wasm"));
    let files = || std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let written = std::fs::metadata(file).unwrap().modified().unwrap();
    let second = Host::new(&options).unwrap();
    second.load_bytes(Path::new("a.wasm"), text.as_bytes()).unwrap();
    assert_eq!(std::fs::metadata(file).unwrap().modified().unwrap(), written, "read, not compiled again");
    std::fs::write(file, b"damaged").unwrap();
    Host::new(&options).unwrap().load_bytes(Path::new("a.wasm"), text.as_bytes()).unwrap();
    assert!(std::fs::metadata(file).unwrap().len() > 1000, "compiled again, and kept");
}

#[tokio::test]
async fn a_thousand_at_once() {
    let host = Host::new(&HostOptions::default()).unwrap();
    let plugin = host.load_bytes(Path::new("guest.wasm"), summing().build().as_bytes()).unwrap();
    let mut transforms = Vec::new();
    for _ in 0..1000 {
        transforms.push(start(&plugin).await);
    }
    for (number, transform) in transforms.iter_mut().enumerate() {
        let number = 2 * number as i64;
        let applied = transform.apply(batch([number])).await.unwrap();
        assert_eq!(values(&applied, "sum"), [number]);
    }
}

#[tokio::test]
async fn the_clock_thread_sleeps_when_nothing_runs() {
    let host = Host::new(&HostOptions::default()).unwrap();
    let plugin = host.load_bytes(Path::new("guest.wasm"), moody().build().as_bytes()).unwrap();
    let parked = async || {
        while !host.ticker().is_parked() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    parked().await;
    let limits = Limits { time: Span(Duration::from_millis(30)), ..Limits::default() };
    let mut transform = try_start(&plugin, limits, &Grants::default(), None).await.unwrap();
    // It wakes up for this: otherwise the loop would never end.
    assert_eq!(transform.apply(batch([moods::LOOP])).await.unwrap().batch.failed.len(), 1);
    parked().await;
}
