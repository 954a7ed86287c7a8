//! The other formats.

use acequia_connector_api::{ColumnType, Position, RowSchema, Source};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::{listening, next_batch, open_at, see};

#[tokio::test]
async fn text_with_a_declared_type() {
    let (mut source, mut client) = listening("schema = { value = 'float64' }").await;
    client.write_all(b"15.5\nnot a number\n-3\n").await.unwrap();
    let seen = see(&mut source, 3).await;
    let values: Vec<_> = seen.rows.iter().map(|row| row.0["value"].clone()).collect();
    assert_eq!(values, [json!(15.5), json!(-3.0)]);
    assert_eq!((seen.failed[0].offset, seen.failed[0].row.as_deref()), (Some(2), Some("not a number")));
    assert_eq!(source.position(), Position::default());
}

#[tokio::test]
async fn raw_lines_need_not_be_text() {
    let (mut source, mut client) = listening("format = 'raw'").await;
    client.write_all(b"\xff\x00\r\nok\n").await.unwrap();
    let seen = see(&mut source, 2).await;
    // Base64 by Python: base64.b64encode(b"\xff\x00").
    assert_eq!(seen.values(), ["/wA=", "b2s="]);
}

#[tokio::test]
async fn json_rows_and_a_broken_one() {
    let (mut source, mut client) = listening("format = 'json'").await;
    client.write_all(b"{\"a\": 1}\n{\"a\": oops}\n{\"a\": 3, \"b\": \"x\"}\n").await.unwrap();
    let seen = see(&mut source, 3).await;
    let rows: Vec<_> = seen.rows.iter().map(|row| (row.0["a"].clone(), row.2)).collect();
    assert_eq!(rows, [(json!(1), 1), (json!(3), 3)]);
    assert_eq!(seen.failed[0].offset, Some(2));
}

#[tokio::test]
async fn column_types_of_json_stay_over_a_restart() {
    let (mut source, mut client) = listening("format = 'json'").await;
    client.write_all(b"{\"a\": 1.5}\n").await.unwrap();
    see(&mut source, 1).await;
    let position = serde_json::to_string(&source.position()).unwrap();
    source.close().await;
    let position: Position = serde_json::from_str(&position).unwrap();
    let mut source = open_at("address = '127.0.0.1:0'\nlisten = true\nformat = 'json'", &position).await;
    let mut client = TcpStream::connect(source.local_address().unwrap()).await.unwrap();
    client.write_all(b"{\"a\": 2}\n").await.unwrap();
    let batch = next_batch(&mut source).await;
    let schema = RowSchema::from_arrow(batch.rows.schema_ref());
    assert_eq!(schema.field("a").unwrap().kind, ColumnType::Float64);
}

#[tokio::test]
async fn each_csv_client_has_a_header_of_its_own() {
    let (mut source, mut one) = listening("format = 'csv'\nschema = { name = 'text', age = 'int64' }").await;
    let mut two = TcpStream::connect(source.local_address().unwrap()).await.unwrap();
    one.write_all(b"name,age\nAnn,7\n").await.unwrap();
    let mut people = see(&mut source, 1).await.rows;
    two.write_all(b"age,name\n8,Bob\n").await.unwrap();
    people.extend(see(&mut source, 1).await.rows);
    one.write_all(b"\"Cy, \n the third\",9\n").await.unwrap();
    people.extend(see(&mut source, 1).await.rows);
    two.write_all(b"10,Di\n").await.unwrap();
    people.extend(see(&mut source, 1).await.rows);
    let people: Vec<_> = people.iter().map(|row| (row.0["name"].as_str().unwrap(), row.0["age"].clone())).collect();
    assert_eq!(people, [("Ann", json!(7)), ("Bob", json!(8)), ("Cy, \n the third", json!(9)), ("Di", json!(10))]);
}
