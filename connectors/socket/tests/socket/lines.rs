//! What becomes of the bytes.

use std::path::Path;
use std::time::Duration;

use acequia_connector_api::{Demand, Event, Source, Span};
use acequia_connector_socket::SocketSource;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::{Seen, config, context, next, next_batch, open, see, server};

#[tokio::test]
async fn every_line_is_a_row_or_a_failed_row_with_its_place() {
    let (server, address) = server().await;
    let mut source = open(&format!("address = '{address}'")).await;
    let (mut stream, _) = server.accept().await.unwrap();
    stream.write_all(b"plain\nwindows\r\n\nnul\0inside\ninvalid \xff\xfe\nZo\xc3\xab\nhalf").await.unwrap();
    stream.shutdown().await.unwrap();
    let seen = see(&mut source, 7).await;
    assert_eq!(seen.values(), ["plain", "windows", "", "nul\0inside", "Zoë", "half"]);
    let lines: Vec<i64> = seen.rows.iter().map(|row| row.2).collect();
    assert_eq!(lines, [1, 2, 3, 4, 6, 7]);
    assert!(seen.rows.iter().all(|row| row.1 == address), "{:?}", seen.rows);
    let failed = &seen.failed[0];
    assert_eq!((failed.partition.as_deref(), failed.offset), (Some(address.as_str()), Some(5)));
    assert!(failed.error.contains("UTF-8"), "{}", failed.error);
    assert_eq!(failed.row.as_deref(), Some("invalid \u{fffd}\u{fffd}"));
}

#[tokio::test]
async fn a_line_that_arrives_in_pieces_is_one_row() {
    let (server, address) = server().await;
    let mut source = open(&format!("address = '{address}'")).await;
    let (mut stream, _) = server.accept().await.unwrap();
    stream.set_nodelay(true).unwrap();
    // Cut in the middle of a character and of a CRLF.
    let pieces: [&[u8]; 5] = [b"one ", b"li\xc3", b"\xabne\r", b"\ntw", b"o\n"];
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let seen = see(&mut source, 2).await;
    assert_eq!(seen.values(), ["one liëne", "two"]);
}

#[tokio::test]
async fn a_line_of_ten_megabytes() {
    let long = "x".repeat(10_000_000);
    let text = format!("before\n{long}\nafter\n");
    for (keys, rows) in [("", 2), ("max_record = '16MiB'", 3)] {
        let (server, address) = server().await;
        let mut source = open(&format!("address = '{address}'\n{keys}")).await;
        let (mut stream, _) = server.accept().await.unwrap();
        let text = text.clone();
        let writer = tokio::spawn(async move {
            stream.write_all(text.as_bytes()).await.unwrap();
            stream
        });
        let seen = see(&mut source, 3).await;
        assert_eq!(seen.rows.len(), rows);
        assert_eq!(seen.values().last(), Some(&"after"));
        assert_eq!(seen.rows.last().unwrap().2, 3);
        match seen.failed.as_slice() {
            [] => assert_eq!(seen.values()[1], long),
            [failed] => {
                assert_eq!(failed.offset, Some(2));
                assert!(failed.row.as_ref().unwrap().len() < 1_000_000, "only a prefix is kept");
            }
            _ => panic!("{:?}", seen.failed),
        }
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn batches_keep_to_the_limit_of_rows() {
    let (server, address) = server().await;
    let config = config(&format!("address = '{address}'"));
    let context = context(Path::new("."), 10);
    let mut source = SocketSource::open(&config, &context, None).await.unwrap();
    let (mut stream, _) = server.accept().await.unwrap();
    // 15 good lines and 10 bad ones, which count as well.
    let text: Vec<u8> = (0..25u8).flat_map(|row| if row < 15 { [b'a' + row, b'\n'] } else { [0xff, b'\n'] }).collect();
    stream.write_all(&text).await.unwrap();
    let mut seen = Seen::default();
    let mut sizes = Vec::new();
    while seen.count() < 25 {
        let batch = next_batch(&mut source).await;
        sizes.push(batch.len() + batch.failed.len());
        seen.add(batch);
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(seen.values().concat(), "abcdefghijklmno");
}

#[tokio::test]
async fn a_broken_connection_fails_the_line_that_it_cuts() {
    let (server, address) = server().await;
    let mut source = open(&format!("address = '{address}'")).await;
    let (mut stream, _) = server.accept().await.unwrap();
    stream.write_all(b"whole\ncut in the mid").await.unwrap();
    assert_eq!(see(&mut source, 1).await.values(), ["whole"]);
    // Closing with a linger of 0 is a reset.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let seen = see(&mut source, 1).await;
    let failed = &seen.failed[0];
    assert_eq!((failed.offset, failed.row.as_deref()), (Some(2), Some("cut in the mid")));
    assert!(failed.error.starts_with("the connection broke in the middle of this record"), "{}", failed.error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_future_of_next_loses_nothing() {
    let (server, address) = server().await;
    let mut source = open(&format!("address = '{address}'")).await;
    let (mut stream, _) = server.accept().await.unwrap();
    let writer = tokio::spawn(async move {
        for first in (0..20_000).step_by(7) {
            let lines: String = (first..(first + 7).min(20_000)).map(|row| format!("row {row}\n")).collect();
            stream.write_all(lines.as_bytes()).await.unwrap();
        }
        stream.shutdown().await.unwrap();
    });
    let mut seen = Seen::default();
    let mut dropped = 0;
    while seen.count() < 20_000 {
        // Far less than the 20 ms that a batch waits, so that most are dropped half full.
        match timeout(Duration::from_micros(300), source.next()).await {
            Ok(Ok(Event::Batch(batch))) => seen.add(batch),
            Ok(Ok(other)) => panic!("a socket gives rows, not {other:?}"),
            Ok(Err(error)) => assert!(error.is_retryable(), "{error}"),
            Err(_) => dropped += 1,
        }
    }
    writer.await.unwrap();
    assert!(dropped > 0);
    for (row, value) in seen.values().into_iter().enumerate() {
        assert_eq!(value, format!("row {row}"));
        assert_eq!(seen.rows[row].2, row as i64 + 1);
    }
}

#[tokio::test]
async fn one_line_does_not_wait_for_more() {
    let (server, address) = server().await;
    let mut source = open(&format!("address = '{address}'")).await;
    let (mut stream, _) = server.accept().await.unwrap();
    for text in ["first\n", "second\n"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        let Event::Batch(batch) = next(&mut source).await.unwrap() else { panic!("an end") };
        assert_eq!(batch.len(), 1);
    }
}

/// With an hour to wait: a batch is handed out when the stages behind have nothing to do, or when it is full, and not before.
#[tokio::test]
async fn rows_gather_only_while_others_are_on_their_way() {
    let (server, address) = server().await;
    let mut context = context(Path::new("."), 3);
    context.batch.wait = Span(Duration::from_secs(3600));
    let mut source = SocketSource::open(&config(&format!("address = '{address}'")), &context, None).await.unwrap();
    let demand = Demand::new();
    source.set_demand(demand.clone());
    let (mut stream, _) = server.accept().await.unwrap();
    stream.write_all(b"alone\n").await.unwrap();
    assert_eq!(see(&mut source, 1).await.values(), ["alone"]);
    let pass = demand.pass();
    stream.write_all(b"one\ntwo\n").await.unwrap();
    // However often it is asked.
    for _ in 0..20 {
        assert!(
            timeout(Duration::from_millis(10), source.next()).await.is_err(),
            "the batch on its way is not waited for"
        );
    }
    // Asked first, and told then that nothing is on its way any more.
    let (batch, ()) = tokio::join!(next_batch(&mut source), async { drop(pass) });
    let mut seen = Seen::default();
    seen.add(batch);
    assert_eq!(seen.values(), ["one", "two"]);
    let _pass = demand.pass();
    for line in [b"three\n".as_slice(), b"four\n", b"five\n"] {
        stream.write_all(line).await.unwrap();
    }
    let mut seen = Seen::default();
    seen.add(next_batch(&mut source).await);
    assert_eq!(seen.values(), ["three", "four", "five"]);
}
