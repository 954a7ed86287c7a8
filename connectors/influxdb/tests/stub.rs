//! What a real server does not do on demand: overload, requests that are too large, a proxy in between.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may")]

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use acequia_connector_api::{Batch, BatchLimits, ConnectorError, Context, Kind, Origin, Sink, SinkConfig};
use acequia_connector_influxdb::InfluxSink;
use arrow_array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use flate2::read::GzDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A request: its first line, and its body without compression.
#[derive(Clone, Debug)]
struct Request {
    line: String,
    body: String,
}

/// Answers each request with what `answer` says: the status line's text after the protocol, more headers, a body.
struct Stub {
    url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    /// How many there are.
    count: watch::Receiver<usize>,
}

type Answer = (&'static str, &'static str, String);

impl Stub {
    async fn start(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/influx", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let answer = Arc::new(answer);
        let (counter, count) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, seen.clone(), counter.clone(), answer.clone()));
            }
        });
        Stub { url, requests, count }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The lines of the requests since the first, which is the one at the start.
    fn bodies(&self) -> Vec<String> {
        self.requests().into_iter().skip(1).map(|request| request.body).collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    count: watch::Sender<usize>,
    answer: Arc<impl Fn(usize, &Request) -> Answer + Send + Sync + 'static>,
) {
    let mut bytes = Vec::new();
    loop {
        let Some(request) = receive(&mut stream, &mut bytes).await else { return };
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            count.send_replace(seen.len());
            seen.len() - 1
        };
        let (status, headers, body) = answer(number, &request);
        if status.is_empty() {
            // Neither answer nor end: the client has to give up by itself.
            std::future::pending::<()>().await;
        }
        let text = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn receive(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let header = |name: &str| {
                let found = head.lines().find_map(|line| line.to_lowercase().strip_prefix(name).map(str::to_owned));
                found.map(|value| value.trim().to_owned())
            };
            let length: usize = header("content-length:").unwrap().parse().unwrap();
            assert_eq!(header("authorization:").as_deref(), Some("token t0ken"));
            if bytes.len() >= end + 4 + length {
                let raw: Vec<u8> = bytes.drain(..end + 4 + length).skip(end + 4).collect();
                let mut body = String::new();
                if header("content-encoding:").as_deref() == Some("gzip") {
                    GzDecoder::new(&*raw).read_to_string(&mut body).unwrap();
                } else {
                    body = String::from_utf8(raw).unwrap();
                }
                return Some(Request { line: head.lines().next().unwrap().to_owned(), body });
            }
        }
        if stream.read_buf(bytes).await.ok()? == 0 {
            return None;
        }
    }
}

const OK: (&str, &str) = ("204 No Content", "");

fn ok() -> Answer {
    (OK.0, OK.1, String::new())
}

fn problem(status: &'static str, code: &str, message: &str) -> Answer {
    (status, "", serde_json::json!({ "code": code, "message": message }).to_string())
}

async fn open(stub: &Stub, more: &str) -> Result<Box<dyn Sink>, ConnectorError> {
    let text = format!(
        "url = '{}'\norg = 'o'\nbucket = 'b'\ntoken = 't0ken'\nmeasurement = 'm'\ntags = ['t']\n{more}",
        stub.url
    );
    let config: InfluxSink = toml::from_str(&text).unwrap();
    config.check().unwrap();
    let context = Context {
        pipeline: "p".into(),
        stage: "sink".into(),
        base: PathBuf::new(),
        batch: BatchLimits::default(),
        tasks: 1,
        reads: None,
        share: Default::default(),
    };
    config.open(&context, None).await
}

fn batch(range: std::ops::Range<i64>) -> Batch {
    let values: Vec<i64> = range.collect();
    let times = TimestampMicrosecondArray::from(values.clone()).with_timezone("UTC");
    let rows = RecordBatch::try_from_iter([
        ("timestamp", Arc::new(times) as ArrayRef),
        ("t", Arc::new(StringArray::from_iter_values(values.iter().map(|value| format!("t{value}"))))),
        ("v", Arc::new(Float64Array::from_iter_values(values.iter().map(|value| *value as f64)))),
    ])
    .unwrap();
    Batch::new(rows, Origin::run("p".into(), values[0]))
}

fn line(value: i64) -> String {
    format!("m,t=t{value} v={value}.0 {value}\n")
}

fn lines(range: std::ops::Range<i64>) -> String {
    range.map(line).collect()
}

#[tokio::test]
async fn a_server_that_is_overloaded_says_when_to_come_back() {
    let stub = Stub::start(|number, _| match number {
        1 => ("429 Too Many Requests", "Retry-After: 7\r\n", String::new()),
        2 => ("503 Service Unavailable", "Retry-After: 2\r\n", "busy".into()),
        _ => ok(),
    })
    .await;
    let mut sink = open(&stub, "").await.unwrap();
    assert!(sink.write(&batch(0..3)).await.unwrap().is_empty());
    for (seconds, part) in [(7, "429"), (2, "503: busy")] {
        let error = sink.flush().await.unwrap_err();
        assert_eq!(error.kind, Kind::Retryable { after: Some(Duration::from_secs(seconds)) });
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(sink.flush().await.unwrap().failed.is_empty());
    assert_eq!(stub.bodies(), [lines(0..3), lines(0..3), lines(0..3)]);
    assert_eq!(stub.requests()[1].line, "POST /influx/api/v2/write?org=o&bucket=b&precision=us HTTP/1.1");
}

#[tokio::test]
async fn a_batch_that_comes_again_is_not_written_twice() {
    let stub = Stub::start(|number, _| match number {
        1..4 => problem("500 Internal Server Error", "internal error", "disk"),
        _ => ok(),
    })
    .await;
    let mut sink = open(&stub, "batch = { rows = 2 }").await.unwrap();
    let batch = batch(0..9);
    let mut tries = 0;
    while sink.write(&batch).await.is_err() {
        tries += 1;
        assert!(tries < 10);
    }
    while sink.flush().await.is_err() {
        tries += 1;
        assert!(tries < 10);
    }
    let written: Vec<String> = stub.bodies().split_off(3);
    assert_eq!(written, [lines(0..2), lines(2..4), lines(4..6), lines(6..8), lines(8..9)]);
}

#[tokio::test]
async fn what_is_too_large_is_cut_until_it_fits() {
    let large = |request: &Request| request.body.lines().count() > 2 || request.body.contains("v=5.0");
    let stub = Stub::start(
        move |_, request| {
            if large(request) { ("413 Payload Too Large", "", "too large".into()) } else { ok() }
        },
    )
    .await;
    for gzip in [false, true] {
        let mut sink = open(&stub, &format!("gzip = {gzip}")).await.unwrap();
        sink.write(&batch(0..8)).await.unwrap();
        let failed = sink.flush().await.unwrap().failed;
        assert_eq!(failed.iter().map(|row| row.offset).collect::<Vec<_>>(), [Some(5)]);
        assert_eq!(failed[0].error, "InfluxDB refuses the point as too large (413: too large)");
    }
    let taken: String = stub.requests().iter().filter(|request| !large(request)).map(|r| r.body.clone()).collect();
    let expected = format!("# acequia\n{}{}", lines(0..5), lines(6..8));
    assert_eq!(taken, expected.repeat(2));
}

#[tokio::test]
async fn only_the_lines_that_are_named_fail_and_the_rest_is_sent_in_one_request() {
    let stub = Stub::start(|_, request| {
        let bad = |line: &&str| line.contains("v=3.0") || line.contains("v=6.0");
        let bad: Vec<String> =
            request.body.lines().filter(bad).map(|line| format!("unable to parse '{line}': odd")).collect();
        if bad.is_empty() { ok() } else { problem("400 Bad Request", "invalid", &bad.join("\n")) }
    })
    .await;
    let mut sink = open(&stub, "").await.unwrap();
    sink.write(&batch(0..10)).await.unwrap();
    let failed = sink.flush().await.unwrap().failed;
    assert_eq!(failed.iter().map(|row| row.offset).collect::<Vec<_>>(), [Some(3), Some(6)]);
    assert_eq!(failed[0].error, "InfluxDB can't read the point: odd");
    assert_eq!(stub.bodies(), [lines(0..10), [lines(0..3), lines(4..6), lines(7..10)].concat()]);
}

#[tokio::test]
async fn a_refusal_that_names_no_line_is_halved() {
    let stub = Stub::start(|_, request| match request.body.contains("v=700.0") {
        true => problem("422 Unprocessable Entity", "unprocessable entity", "something is odd"),
        false => ok(),
    })
    .await;
    let mut sink = open(&stub, "").await.unwrap();
    sink.write(&batch(0..5000)).await.unwrap();
    let failed = sink.flush().await.unwrap().failed;
    assert_eq!(failed.iter().map(|row| row.offset).collect::<Vec<_>>(), [Some(700)]);
    // log2(5000) halvings, two requests each.
    assert!(stub.requests().len() <= 28, "{}", stub.requests().len());
}

#[tokio::test]
async fn a_proxy_that_refuses_is_not_the_fault_of_the_lines() {
    let stub = Stub::start(|number, _| match number {
        1 => ("400 Bad Request", "", "<html>bad</html>".into()),
        2 => ("301 Moved Permanently", "Location: https://there/\r\n", String::new()),
        3 => problem("401 Unauthorized", "unauthorized", "unauthorized access"),
        _ => ok(),
    })
    .await;
    let mut sink = open(&stub, "").await.unwrap();
    sink.write(&batch(0..3)).await.unwrap();
    for part in ["<html>bad</html>", "https://there/: give that as `url`", "does not know the token"] {
        let error = sink.flush().await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains(part), "{error}");
    }
    assert!(sink.flush().await.unwrap().failed.is_empty());
    assert_eq!(stub.bodies().pop().unwrap(), lines(0..3));
}

#[tokio::test]
async fn points_do_not_wait_for_a_flush() {
    let stub = Stub::start(|_, _| ok()).await;
    let mut sink = open(&stub, "batch = { wait = '50ms' }").await.unwrap();
    sink.write(&batch(0..3)).await.unwrap();
    // The first request is the one at the start.
    let mut count = stub.count.clone();
    let second = count.wait_for(|count| *count == 2);
    tokio::time::timeout(Duration::from_secs(10), second).await.expect("a request without a flush").unwrap();
    assert_eq!(stub.bodies(), [lines(0..3)]);
    sink.flush().await.unwrap();
    assert_eq!(stub.bodies().len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let stub = Stub::start(|number, _| if number == 1 { ("", "", String::new()) } else { ok() }).await;
    let mut sink = open(&stub, "timeout = '200ms'").await.unwrap();
    sink.write(&batch(0..3)).await.unwrap();
    let error = sink.flush().await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().ends_with("does not answer in time"), "{error}");
    assert!(sink.flush().await.unwrap().failed.is_empty());
    assert_eq!(stub.bodies(), [lines(0..3), lines(0..3)]);
}

#[tokio::test]
async fn closing_does_not_wait_for_a_server_that_hangs() {
    let stub = Stub::start(|number, _| if number == 1 { ("", "", String::new()) } else { ok() }).await;
    let mut sink = open(&stub, "timeout = '1h'\nbatch = { rows = 1 }").await.unwrap();
    sink.write(&batch(0..1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), sink.close()).await.unwrap();
}
