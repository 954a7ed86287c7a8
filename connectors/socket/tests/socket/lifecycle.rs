//! Servers that come and go, and the end of a source.

use acequia_connector_api::{Event, Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};

use crate::{Seen, context, listening, next, open, report, see, server};

#[tokio::test]
async fn connects_again_when_the_server_has_gone() {
    let (server, address) = server().await;
    let mut source = open(&format!("address = '{address}'")).await;
    for round in 0..3 {
        let (mut stream, _) = server.accept().await.unwrap();
        stream.write_all(format!("round {round}\nno line break").as_bytes()).await.unwrap();
        drop(stream);
        let seen = see(&mut source, 2).await;
        assert_eq!(seen.values(), [format!("round {round}"), "no line break".into()]);
        // Lines are counted in each connection.
        assert_eq!(seen.rows[1].2, 2);
    }
}

#[tokio::test]
async fn a_server_that_comes_up_later() {
    let (server, address) = server().await;
    drop(server);
    let mut source = open(&format!("address = '{address}'")).await;
    let error = next(&mut source).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), format!("can't connect to {address}"));
    assert!(report(&error).contains("refused"), "{}", report(&error));
    let server = TcpListener::bind(&address).await.unwrap();
    let (mut stream, _) = server.accept().await.unwrap();
    // Told once, however often it was tried; and that it is over, although the server says nothing yet.
    let Event::Batch(batch) = next(&mut source).await.unwrap() else { panic!("an end") };
    assert!(batch.is_empty() && batch.failed.is_empty());
    stream.write_all(b"here\n").await.unwrap();
    assert_eq!(see(&mut source, 1).await.values(), ["here"]);
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    // RFC 2606: `.invalid` never does.
    let mut source = open("address = 'nobody.invalid:9999'").await;
    let error = next(&mut source).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), "can't connect to nobody.invalid:9999");
}

#[tokio::test]
async fn a_server_that_drops_everyone_is_reported() {
    let (server, address) = server().await;
    let mut source = open(&format!("address = '{address}'")).await;
    drop(server.accept().await.unwrap());
    let error = next(&mut source).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(report(&error), format!("{address} closed the connection: it had not sent anything"));
}

#[tokio::test]
async fn a_unix_server() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.sock");
    let config = crate::config("unix = 'out.sock'");
    let context = context(folder.path(), 8192);
    let mut source = acequia_connector_socket::SocketSource::open(&config, &context, None).await.unwrap();
    let error = next(&mut source).await.unwrap_err();
    assert_eq!(error.to_string(), format!("can't connect to {}", path.display()));
    let server = UnixListener::bind(&path).unwrap();
    let (mut stream, _) = server.accept().await.unwrap();
    stream.write_all(b"over a file\n").await.unwrap();
    let seen = see(&mut source, 1).await;
    assert_eq!(seen.values(), ["over a file"]);
    assert_eq!(seen.rows[0].1, path.display().to_string());
}

#[tokio::test]
async fn stopping_delivers_what_was_read() {
    let config = crate::config("address = '127.0.0.1:0'\nlisten = true");
    let context = context(std::path::Path::new("."), 10);
    let mut source = acequia_connector_socket::SocketSource::open(&config, &context, None).await.unwrap();
    let mut client = TcpStream::connect(source.local_address().unwrap()).await.unwrap();
    // Small enough to arrive in one piece: when its first rows are there, all of it has been read.
    let text: String = (0..95).map(|row| format!("{row}\n")).collect();
    client.write_all(format!("{text}and a ha").as_bytes()).await.unwrap();
    let mut seen = Seen::default();
    let Event::Batch(batch) = next(&mut source).await.unwrap() else { panic!("an end") };
    seen.add(batch);
    assert_eq!(seen.count(), 10);
    assert!(source.stop());
    while let Event::Batch(batch) = next(&mut source).await.unwrap() {
        seen.add(batch);
    }
    let numbers: Vec<String> = (0..95).map(|row| row.to_string()).collect();
    assert_eq!(seen.values(), numbers);
    // The client was cut off in the middle of a line: that is not a row, but it is not lost without a word either.
    let failed = &seen.failed[0];
    assert_eq!((failed.offset, failed.row.as_deref()), (Some(96), Some("and a ha")));
    assert_eq!(failed.error, "the pipeline stopped in the middle of this record");
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(matches!(next(&mut source).await.unwrap(), Event::End));
    source.close().await;
}

#[tokio::test]
async fn closing_frees_the_port_even_with_clients() {
    let (mut source, mut client) = listening("").await;
    client.write_all(b"x\n").await.unwrap();
    see(&mut source, 1).await;
    let address = source.local_address().unwrap();
    assert!(TcpListener::bind(address).await.is_err());
    source.close().await;
    let mut again = open(&format!("address = '{address}'\nlisten = true")).await;
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(b"y\n").await.unwrap();
    assert_eq!(see(&mut again, 1).await.values(), ["y"]);
}

#[tokio::test]
async fn dropping_a_source_ends_its_connection() {
    let (server, address) = server().await;
    let source = open(&format!("address = '{address}'")).await;
    let (mut stream, _) = server.accept().await.unwrap();
    drop(source);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
}
