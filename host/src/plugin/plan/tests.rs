use super::*;

fn rate() -> RowSchema {
    RowSchema::closed(vec![
        Field::new("value", ColumnType::Int64, false),
        Field::new("timestamp", ColumnType::Timestamp, false),
    ])
}

fn plan() -> Plan {
    Plan { reads: Some(Vec::new()), adds: Vec::new(), passes: Passes::Every, moves: Vec::new(), tick_every: None }
}

fn read(name: &str) -> Input {
    Input { name: name.to_owned(), kind: ColumnType::Int64, nullable: false }
}

fn moved(source: &str, name: &str, kind: Option<ColumnType>) -> Move {
    Move { source: source.to_owned(), name: name.to_owned(), kind }
}

fn names(schema: &RowSchema) -> Vec<&str> {
    schema.fields.iter().map(|field| field.name.as_str()).collect()
}

#[test]
fn a_column_that_no_one_provides() {
    let near = Plan { reads: Some(vec![read("valeu")]), ..plan() };
    insta::assert_snapshot!(
        near.check(&rate(), false).unwrap_err(),
        @"there is no column `valeu` (did you mean `value`?); there are: `value`, `timestamp`"
    );
    let open = RowSchema { open: true, ..rate() };
    assert_eq!(near.check(&open, false), Ok(()), "rows of an open schema may bring it");
    let far = Plan { passes: Passes::Only(vec!["quantity".to_owned()]), ..plan() };
    insta::assert_snapshot!(
        far.check(&rate(), false).unwrap_err(),
        @"there is no column `quantity`; there are: `value`, `timestamp`"
    );
    let from = Plan { moves: vec![moved("key", "id", None)], ..plan() };
    insta::assert_snapshot!(
        from.check(&RowSchema::closed(Vec::new()), false).unwrap_err(),
        @"there is no column `key`; the rows have no columns at all"
    );
}

#[test]
fn a_column_that_can_never_be_cast() {
    let of = |name: &str, kind| Plan { reads: Some(vec![Input { kind, ..read(name) }]), ..plan() };
    insta::assert_snapshot!(
        of("value", ColumnType::Timestamp).check(&rate(), false).unwrap_err(),
        @"column `value` is int64, and no such value can be cast to timestamp, as the plugin wants it"
    );
    let cast = Plan { moves: vec![moved("timestamp", "timestamp", Some(ColumnType::Boolean))], ..plan() };
    insta::assert_snapshot!(
        cast.check(&rate(), false).unwrap_err(),
        @"column `timestamp` is timestamp, and no such value can be cast to boolean, as the plugin wants it"
    );
    assert_eq!(of("value", ColumnType::Boolean).check(&rate(), false), Ok(()), "0 and 1 can be cast");
}

#[test]
fn plans_that_contradict_themselves() {
    let twice = Plan { reads: Some(vec![read("value"), read("value")]), ..plan() };
    assert_eq!(twice.check(&rate(), false).unwrap_err(), "the plugin reads `value` twice");
    let clash = Plan { moves: vec![moved("value", "timestamp", None)], ..plan() };
    assert_eq!(
        clash.check(&rate(), false).unwrap_err(),
        "two columns of the output would have the name `timestamp`: rename or drop one"
    );
    let field = Field::new("id", ColumnType::Text, false);
    let adds = Plan { adds: vec![field.clone(), field], ..plan() };
    assert_eq!(adds.check(&rate(), false).unwrap_err(), "the plugin adds `id` twice");
    let tick = Plan { tick_every: Some(Duration::from_millis(5)), ..plan() };
    assert!(tick.check(&rate(), false).unwrap_err().contains("does not export `tick`"));
    assert_eq!(tick.check(&rate(), true), Ok(()));
    let always = Plan { tick_every: Some(Duration::ZERO), ..plan() };
    assert_eq!(always.check(&rate(), true).unwrap_err(), "the plugin wants to be called every 0 ms: at least 1");
}

#[test]
fn columns_keep_their_places() {
    let plan = Plan {
        adds: vec![Field::new("id", ColumnType::Text, false), Field::new("timestamp", ColumnType::Text, true)],
        moves: vec![moved("value", "number", Some(ColumnType::Text)), moved("value", "again", None)],
        ..plan()
    };
    let output = plan.output(&rate()).unwrap();
    assert_eq!(names(&output), ["number", "again", "timestamp", "id"]);
    assert_eq!(
        output.fields.iter().map(|field| field.kind).collect::<Vec<_>>(),
        [ColumnType::Text, ColumnType::Int64, ColumnType::Text, ColumnType::Text]
    );
    assert!(!output.open);
    let layout = Layout::new(&plan, &rate().to_arrow()).unwrap();
    assert_eq!(layout.slots, [Place::Cast(0), Place::Input(0), Place::Add(1), Place::Add(0)]);
    assert_eq!(RowSchema::from_arrow(&layout.output), output);
    let (schema, slots) = layout.fresh();
    assert_eq!(names(&RowSchema::from_arrow(&schema)), ["timestamp", "id"]);
    assert_eq!(slots, [Place::Add(1), Place::Add(0)]);
}

#[test]
fn an_aggregate_closes_an_open_schema() {
    let open = RowSchema { open: true, ..rate() };
    let adds = vec![Field::new("word", ColumnType::Text, false)];
    let aggregate = Plan { adds, passes: Passes::Only(Vec::new()), ..plan() };
    assert_eq!(names(&aggregate.output(&open).unwrap()), ["word"]);
    assert!(!aggregate.output(&open).unwrap().open);
    assert!(plan().output(&open).unwrap().open);
    let only = Plan { passes: Passes::Only(vec!["value".to_owned()]), ..plan() };
    assert!(!only.output(&open).unwrap().open);
    let unknown = Plan { passes: Passes::Only(vec!["other".to_owned()]), ..plan() };
    assert!(unknown.output(&open).unwrap().open);
}

#[test]
fn an_absent_column_is_laid_out_as_absent() {
    let plan = Plan { reads: Some(vec![read("other"), read("timestamp")]), ..plan() };
    let layout = Layout::new(&plan, &rate().to_arrow()).unwrap();
    let from: Vec<_> = layout.reads.iter().map(|read| read.from).collect();
    assert_eq!(from, [None, Some((1, ColumnType::Timestamp))]);
}
