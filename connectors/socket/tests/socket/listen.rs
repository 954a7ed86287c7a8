//! Many clients.

use std::collections::HashMap;

use acequia_connector_api::Source;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::{config, context, listening, see, try_open};

#[tokio::test]
async fn clients_are_merged_line_by_line() {
    let (mut source, mut one) = listening("").await;
    let mut two = TcpStream::connect(source.local_address().unwrap()).await.unwrap();
    for stream in [&one, &two] {
        stream.set_nodelay(true).unwrap();
    }
    one.write_all(b"one: first\none: sec").await.unwrap();
    two.write_all(b"two: fir").await.unwrap();
    assert_eq!(see(&mut source, 1).await.values(), ["one: first"]);
    two.write_all(b"st\r\n").await.unwrap();
    assert_eq!(see(&mut source, 1).await.values(), ["two: first"]);
    one.write_all(b"ond\n").await.unwrap();
    let seen = see(&mut source, 1).await;
    assert_eq!(seen.values(), ["one: second"]);
    assert_eq!(seen.rows[0].1, one.local_addr().unwrap().to_string());
    assert_eq!(seen.rows[0].2, 2);
    // The one that goes leaves the other alone.
    one.write_all(b"one: last").await.unwrap();
    drop(one);
    assert_eq!(see(&mut source, 1).await.values(), ["one: last"]);
    two.write_all(b"two: second\n").await.unwrap();
    assert_eq!(see(&mut source, 1).await.values(), ["two: second"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_clients_at_once() {
    let (mut source, first) = listening("").await;
    drop(first);
    let address = source.local_address().unwrap();
    for client in 0..50 {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let text: String = (0..200).map(|row| format!("{client} {row}\n")).collect();
            stream.write_all(text.as_bytes()).await.unwrap();
        });
    }
    let seen = see(&mut source, 50 * 200).await;
    let mut next: HashMap<&str, usize> = HashMap::new();
    for (value, (_, _, line)) in seen.values().into_iter().zip(&seen.rows) {
        let (client, row) = value.split_once(' ').unwrap();
        let expected = next.entry(client).or_default();
        assert_eq!(row.parse::<usize>().unwrap(), *expected);
        *expected += 1;
        assert_eq!(*line, *expected as i64);
    }
    assert_eq!(next.len(), 50);
}

#[tokio::test]
async fn more_clients_than_allowed_wait_for_their_turn() {
    let (mut source, mut one) = listening("max_connections = 1").await;
    one.write_all(b"one: first\n").await.unwrap();
    assert_eq!(see(&mut source, 1).await.values(), ["one: first"]);
    let mut two = TcpStream::connect(source.local_address().unwrap()).await.unwrap();
    two.write_all(b"two\n").await.unwrap();
    one.write_all(b"one: last\n").await.unwrap();
    assert_eq!(see(&mut source, 1).await.values(), ["one: last"]);
    drop(one);
    assert_eq!(see(&mut source, 1).await.values(), ["two"]);
}

#[tokio::test]
async fn nothing_is_read_while_nobody_takes_rows() {
    let (mut source, client) = listening("").await;
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    let block = line.repeat(64);
    // Give up only when the other tasks of this thread had many a turn and made no room.
    let (mut sent, mut refused) = (0, 0);
    while refused < 5_000 {
        match client.try_write(&block[sent % block.len()..]) {
            Ok(bytes) => {
                (sent, refused) = (sent + bytes, 0);
                assert!(sent < 64 << 20, "memory is not bounded");
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                refused += 1;
                tokio::task::yield_now().await;
            }
        }
    }
    // All that was taken is delivered once somebody wants it.
    drop(client);
    let seen = see(&mut source, sent.div_ceil(line.len())).await;
    let bytes: usize = seen.values().iter().map(|value| value.len()).sum();
    assert_eq!(bytes + sent / line.len(), sent);
}

#[tokio::test]
async fn a_unix_listener() {
    let folder = tempfile::tempdir().unwrap();
    // A relative path starts at the folder of the configuration.
    let config = config("unix = 'in.sock'\nlisten = true");
    let context = context(folder.path(), 8192);
    let mut source = acequia_connector_socket::SocketSource::open(&config, &context, None).await.unwrap();
    let path = folder.path().join("in.sock");
    for client in 1..3 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        stream.write_all(format!("from {client}").as_bytes()).await.unwrap();
        drop(stream);
        let seen = see(&mut source, 1).await;
        assert_eq!(seen.values(), [format!("from {client}")]);
        assert_eq!(seen.rows[0].1, format!("{}#{client}", path.display()));
    }
    let error = acequia_connector_socket::SocketSource::open(&config, &context, None).await.err().unwrap();
    assert_eq!(crate::report(&error), format!("can't listen on {}: another process listens there", path.display()));
    source.close().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_it() {
    let (server, address) = crate::server().await;
    let error = try_open(&format!("address = '{address}'\nlisten = true")).await.err().unwrap();
    assert_eq!(error.to_string(), format!("can't listen on {address}"));
    assert!(crate::report(&error).contains("in use"), "{}", crate::report(&error));
    drop(server);
    assert!(try_open(&format!("address = '{address}'\nlisten = true")).await.is_ok());
}
