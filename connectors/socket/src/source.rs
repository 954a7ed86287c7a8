//! The running source.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use acequia_connector_api::{Batch, ConnectorError, Context, Demand, Event, Position, Source};
use acequia_format::{Decoder, Format, FormatOptions, Frame, Framer};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::SocketConfig;
use crate::endpoint::Endpoint;
use crate::reader::{self, Hub, Message, Peer, Problem};

/// Where a JSON source's column types stand in the position.
const COLUMNS: &str = "columns";

/// A running `socket` source.
///
/// Tasks read the sockets; what they bring is kept here until it is in a batch, so that dropping the future of `next`
/// loses nothing.
pub struct SocketSource {
    options: FormatOptions,
    max_record: usize,
    decoder: Decoder,
    connections: HashMap<u64, Connection>,
    /// The connection whose records the decoder had last.
    turn: Option<u64>,
    /// What is left of a chunk when a batch was full.
    rest: Option<(Arc<Peer>, Bytes)>,
    /// Records since the last batch, failed ones counted.
    records: usize,
    /// When the batch is handed out even if it is not full.
    deadline: Option<Instant>,
    messages: mpsc::Receiver<Message>,
    problem: watch::Receiver<Option<Problem>>,
    /// The problem that has been told of, and that is not over.
    told: Option<String>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    local_address: Option<SocketAddr>,
    most_records: usize,
    most_bytes: usize,
    wait: Duration,
    demand: Demand,
}

/// What is kept of a connection between two of its chunks.
struct Connection {
    framer: Framer,
    /// The CSV header and its line. Each client has its own, and the decoder is told whose turn it is.
    header: Option<(Vec<u8>, i64)>,
}

/// What a framer has to do.
#[derive(Clone, Copy)]
enum Work<'a> {
    Feed(&'a [u8]),
    /// No more comes. With a reason if what was begun is not whole.
    Finish(Option<&'a str>),
}

impl SocketSource {
    /// Start to connect, or to listen.
    ///
    /// # Errors
    /// If it can't listen. A server that can't be reached is no error here: it may come up later, and until then `next`
    /// says why nothing comes.
    pub async fn open(
        config: &SocketConfig,
        context: &Context,
        position: Option<&Position>,
    ) -> Result<Self, ConnectorError> {
        let endpoint = match (&config.address, &config.unix) {
            (Some(address), _) => Endpoint::Tcp(address.clone()),
            (None, Some(path)) => Endpoint::Unix(context.path(path)),
            (None, None) => {
                return Err(ConnectorError::failed("where to connect is missing: give `address` or `unix`"));
            }
        };
        let (sender, messages) = mpsc::channel(reader::QUEUE);
        let (problem_sender, problem) = watch::channel(None);
        let (stop, stop_receiver) = watch::channel(false);
        let hub = Arc::new(Hub {
            messages: sender,
            problem: problem_sender,
            stop: stop_receiver,
            connections: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        let mut local_address = None;
        if config.listen {
            let listener = endpoint
                .listen()
                .await
                .map_err(|error| ConnectorError::retryable(format!("can't listen on {endpoint}")).because(error))?;
            local_address = listener.local_address();
            tasks.spawn(reader::serve(listener, endpoint, config.max_connections, hub));
        } else {
            tasks.spawn(reader::dial(endpoint, hub));
        }
        let options = config.format_options();
        let mut decoder = Decoder::new(&options).reading(context.reads.as_deref());
        if let Some(columns) = position.and_then(Position::as_single).and_then(|value| value.get(COLUMNS)) {
            decoder.set_inferred(columns);
        }
        Ok(SocketSource {
            max_record: config.max_record.as_usize(),
            decoder,
            options,
            connections: HashMap::new(),
            turn: None,
            rest: None,
            records: 0,
            deadline: None,
            messages,
            problem,
            told: None,
            stop,
            tasks,
            local_address,
            most_records: context.batch.rows.max(1),
            most_bytes: context.batch.bytes.as_usize().max(1),
            wait: context.batch.wait.0,
            demand: Demand::default(),
        })
    }

    /// The address that a TCP listener has; of interest with port 0, which is any free one.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    fn is_full(&self) -> bool {
        self.records >= self.most_records || self.decoder.bytes() >= self.most_bytes
    }

    fn take_batch(&mut self) -> Batch {
        self.records = 0;
        self.deadline = None;
        self.decoder.finish()
    }

    /// Decode what is there, until the batch is full.
    fn decode_rest(&mut self) {
        while !self.is_full() {
            let Some((peer, mut bytes)) = self.rest.take() else { return };
            let ending = if self.options.format == Format::Json { b'}' } else { b'\n' };
            let room = self.most_bytes - self.decoder.bytes();
            let piece = bytes.split_to(end_of_records(&bytes, ending, self.most_records - self.records, room));
            if !bytes.is_empty() {
                self.rest = Some((peer.clone(), bytes));
            }
            self.decode(&peer, Work::Feed(&piece));
        }
    }

    /// Let a connection's framer work.
    fn decode(&mut self, peer: &Peer, work: Work<'_>) {
        let connection = self
            .connections
            .entry(peer.id)
            .or_insert_with(|| Connection { framer: Framer::new(&self.options, self.max_record), header: None });
        if self.turn.replace(peer.id) != Some(peer.id)
            && let Some((header, line)) = &connection.header
        {
            self.decoder.set_header(header, &peer.partition, *line);
        }
        let Connection { framer, header } = connection;
        let broken = match work {
            Work::Finish(broken) => broken,
            Work::Feed(_) => None,
        };
        let mut each = |frame: Frame<'_>| {
            let line = i64::try_from(frame.line).unwrap_or(i64::MAX);
            if frame.header {
                *header = Some((frame.record.to_vec(), line));
            } else {
                self.records += 1;
            }
            match broken {
                Some(reason) if frame.error.is_none() => {
                    self.decoder.fail(frame.record, &peer.partition, line, reason.to_owned());
                }
                _ => self.decoder.push_frame(&frame, &peer.partition),
            }
        };
        match work {
            Work::Feed(bytes) => framer.feed(bytes, &mut each),
            Work::Finish(_) => framer.finish(&mut each),
        }
        if self.deadline.is_none() && !self.decoder.is_empty() {
            self.deadline = Some(Instant::now() + self.wait);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Data(peer, bytes) => self.rest = Some((peer, bytes)),
            Message::Closed(peer, broken) => {
                if self.connections.contains_key(&peer.id) {
                    self.decode(&peer, Work::Finish(broken.as_deref()));
                    self.connections.remove(&peer.id);
                }
            }
        }
    }
}

/// Length of the part of `bytes` that completes at most `records` records, and ends with the one that reaches `room` bytes,
/// going by the byte that ends a record. (A record may contain that byte as well: then it is fewer.)
fn end_of_records(bytes: &[u8], ending: u8, records: usize, room: usize) -> usize {
    let by_count = memchr::memchr_iter(ending, bytes).nth(records.saturating_sub(1));
    let end = by_count.map_or(bytes.len(), |index| index + 1);
    let full = room.saturating_sub(1);
    match bytes.get(full..end).and_then(|rest| memchr::memchr(ending, rest)) {
        Some(index) => full + index + 1,
        None => end,
    }
}

#[async_trait]
impl Source for SocketSource {
    async fn next(&mut self) -> Result<Event, ConnectorError> {
        loop {
            self.decode_rest();
            let late = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
            if self.is_full() || late {
                return Ok(Event::Batch(self.take_batch()));
            }
            tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Some(message) => self.take(message),
                    // Every task has ended.
                    None if !self.decoder.is_empty() => return Ok(Event::Batch(self.take_batch())),
                    None if *self.stop.borrow() => return Ok(Event::End),
                    None => return Err(ConnectorError::failed("the task that reads the socket has ended")),
                },
                // After everything that has come: what is sent together stays together.
                () = self.demand.idle(), if self.deadline.is_some() => return Ok(Event::Batch(self.take_batch())),
                () = until(self.deadline) => return Ok(Event::Batch(self.take_batch())),
                // Rows first, then the reason why no more come.
                Ok(()) = self.problem.changed(), if self.deadline.is_none() => {
                    let problem = self.problem.borrow_and_update().clone();
                    match problem {
                        // Once is enough: who is told waits before he asks again, longer each time, and rows that come
                        // meanwhile would wait with him.
                        Some(Problem { message, cause }) => {
                            let text = format!("{message}: {cause}");
                            if self.told.as_ref() != Some(&text) {
                                self.told = Some(text);
                                return Err(ConnectorError::retryable(message).because(cause));
                            }
                        }
                        // A batch without rows: it is over, even if nothing comes for a while.
                        None => {
                            if self.told.take().is_some() {
                                return Ok(Event::Batch(self.take_batch()));
                            }
                        }
                    }
                }
            }
        }
    }

    fn set_demand(&mut self, demand: Demand) {
        self.demand = demand;
    }

    /// Nothing to go back to: a socket can't be read again. What has been learnt of the columns of JSON rows is kept, so
    /// that they don't change their types over a restart.
    fn position(&self) -> Position {
        match self.decoder.inferred() {
            Some(columns) => Position::single(json!({ COLUMNS: columns })),
            None => Position::default(),
        }
    }

    fn stop(&mut self) -> bool {
        self.stop.send_replace(true);
        true
    }

    /// Frees the port, or the path. What was read and not handed out is lost; call [`Source::stop`] first to have it.
    async fn close(&mut self) {
        self.stop.send_replace(true);
        self.tasks.shutdown().await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_end_after_a_record() {
        let end = |bytes: &[u8], records| end_of_records(bytes, b'\n', records, 100);
        assert_eq!(end(b"a\nbc\n\nd", 1), 2);
        assert_eq!(end(b"a\nbc\n\nd", 3), 6);
        assert_eq!(end(b"a\nbc\n\nd", 4), 7);
        assert_eq!(end(b"no end", 1), 6);
        assert_eq!(end(b"", 5), 0);
    }

    #[test]
    fn pieces_end_where_a_batch_has_its_bytes() {
        let end = |room| end_of_records(b"a\nbc\nd\ne", b'\n', 3, room);
        assert_eq!([0, 1, 2, 3, 5, 6, 7, 8, 100].map(end), [2, 2, 2, 5, 5, 7, 7, 7, 7]);
    }
}
