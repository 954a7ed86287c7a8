use acequia_plugin_sdk::{Reads, Selection, testing};

use super::*;

fn closed() -> Schema {
    testing::schema(&[("id", ColumnType::Int64), ("name", ColumnType::Text), ("age", ColumnType::Text)])
}

fn plan(config: &str, schema: &Schema) -> Result<Plan, String> {
    testing::transform::<Select>(config, schema).map(|plugin| plugin.plan().clone()).map_err(|error| error.to_string())
}

#[track_caller]
fn fails(config: &str, expected: &str) {
    assert_eq!(plan(config, &closed()).unwrap_err(), expected);
}

fn moved(source: &str, name: &str, kind: Option<ColumnType>) -> Move {
    Move { source: source.to_string(), name: name.to_string(), kind }
}

#[test]
fn no_value_enters_the_plugin() {
    let mut plugin = testing::transform::<Select>(r#"{ "keep": ["id"] }"#, &closed()).unwrap();
    assert_eq!(plugin.plan().reads, Reads::Columns(Vec::new()));
    let output = plugin.apply(&testing::batch(3).int64("id", [1, 2, 3])).unwrap();
    assert_eq!((output.rows, output.columns.len()), (Selection::All, 0));
}

#[test]
fn keeps_and_drops() {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    assert_eq!(plan(r#"{ "keep": ["id", "age"] }"#, &closed()).unwrap().passes, Passes::Only(names(&["id", "age"])));
    assert_eq!(plan(r#"{ "drop": ["name"] }"#, &closed()).unwrap().passes, Passes::Except(names(&["name"])));
    assert_eq!(plan("{}", &closed()).unwrap(), Plan::pass());
}

#[test]
fn renames_and_casts_in_the_order_of_the_schema() {
    let config = r#"{ "rename": { "age": "years", "id": "key" }, "cast": { "age": "int64", "name": "json" } }"#;
    let expected = [
        moved("id", "key", None),
        moved("name", "name", Some(ColumnType::Json)),
        moved("age", "years", Some(ColumnType::Int64)),
    ];
    assert_eq!(plan(config, &closed()).unwrap().moves, expected);
    // Names may be swapped.
    assert_eq!(plan(r#"{ "rename": { "id": "name", "name": "id" } }"#, &closed()).unwrap().moves.len(), 2);
}

#[test]
fn an_open_schema_may_have_any_column() {
    let open = testing::any_schema();
    let plan = plan(r#"{ "keep": ["x", "y"], "rename": { "x": "z" } }"#, &open).unwrap();
    assert_eq!(plan.moves, [moved("x", "z", None)]);
}

#[test]
fn a_column_that_no_one_provides_is_named() {
    fails(r#"{ "keep": ["nmae"] }"#, "`keep`: there is no column `nmae`; did you mean `name`?");
    fails(r#"{ "drop": ["word"] }"#, "`drop`: there is no column `word`: the columns are `id`, `name`, `age`");
    fails(r#"{ "rename": { "Age": "a" } }"#, "`rename`: there is no column `Age`; did you mean `age`?");
    fails(r#"{ "cast": { "ids": "text" } }"#, "`cast`: there is no column `ids`; did you mean `id`?");
}

#[test]
fn contradictions_are_refused() {
    fails(r#"{ "keep": ["id"], "drop": ["age"] }"#, "`keep` and `drop` exclude each other: remove one of them");
    fails(r#"{ "keep": [] }"#, "`keep` must name a column");
    fails(r#"{ "keep": ["id"], "rename": { "age": "years" } }"#, "`rename`: the column `age` is not in `keep`");
    fails(r#"{ "drop": ["age"], "cast": { "age": "int64" } }"#, "`cast`: the column `age` is in `drop`");
    fails(r#"{ "rename": { "age": "name" } }"#, "`rename`: two columns would have the name `name`");
    fails(r#"{ "rename": { "age": "x", "id": "x" } }"#, "`rename`: two columns would have the name `x`");
    fails(r#"{ "rename": { "age": "" } }"#, "`rename`: the new name of `age` is empty");
    assert!(plan(r#"{ "drop": ["name"], "rename": { "age": "name" } }"#, &closed()).is_ok());
}

#[test]
fn a_type_that_does_not_exist_is_named() {
    fails(r#"{ "cast": { "age": "float" } }"#, "`cast`: `age`: there is no type `float`; did you mean `float64`?");
    fails(
        r#"{ "cast": { "age": "decimal" } }"#,
        "`cast`: `age`: there is no type `decimal`: the types are `boolean`, `int64`, `float64`, `timestamp`, `text`, \
         `binary`, `json`",
    );
}
