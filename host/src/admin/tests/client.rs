//! A listener on a free port with a runtime of its own, and a client that shows the bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::admin::Board;
use crate::admin::{Exposure, bind, serve};

/// Longer than any answer takes: a test that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Server {
    pub(super) address: SocketAddr,
    runtime: Runtime,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) content_type: String,
    pub(super) body: String,
    headers: Vec<(String, String)>,
}

impl Server {
    pub(super) fn start(board: Arc<Board>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(bind("127.0.0.1:0", Exposure::Loopback)).unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, signal) = oneshot::channel();
        let task = runtime.spawn(serve(listener, board, super::info(), async {
            let _ = signal.await;
        }));
        Server { address, runtime, shutdown, task }
    }

    /// A connection on which that much has been sent.
    pub(super) fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        // The server may close before it has read everything.
        let _ = stream.write_all(bytes);
        stream
    }

    /// Send bytes, and read until the server closes. (To close this side first would be to hang up.)
    pub(super) fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }

    pub(super) fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let length = body.len();
        let address = self.address;
        Answer::parse(&self.raw(
            format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").as_bytes(),
        ))
    }

    pub(super) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "")
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(task)
    }

    pub(super) fn wait(&self, task: JoinHandle<()>) {
        self.runtime.block_on(task).unwrap();
    }

    /// Tell it to leave, and wait until it has.
    pub(super) fn stop(self) -> Duration {
        let asked = Instant::now();
        self.shutdown.send(()).unwrap();
        self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.task).await }).unwrap().unwrap();
        asked.elapsed()
    }
}

impl Answer {
    pub(super) fn parse(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        assert_eq!(find("transfer-encoding"), None, "answers are written whole");
        let content_type = find("content-type").unwrap_or_default();
        Answer { status, content_type, body: body.to_owned(), headers }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}
