//! The tasks that read sockets. They know nothing of rows: they pass on bytes, in a bounded queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::endpoint::{Endpoint, Listener, Stream};

/// Most bytes of one read.
const CHUNK: usize = 32 << 10;
/// A buffer with less room than this is replaced before the next read.
const LEAST_ROOM: usize = 4 << 10;
/// Chunks that may wait: with [`CHUNK`], 1 MiB at most.
pub(crate) const QUEUE: usize = 32;
/// For a server that does not even refuse.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One connection.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Unique among the connections of a source.
    pub(crate) id: u64,
    /// The other side's address.
    pub(crate) partition: Arc<str>,
}

/// What a connection brings.
#[derive(Debug)]
pub(crate) enum Message {
    Data(Arc<Peer>, Bytes),
    /// The last message of a connection. With a reason if it did not end properly, so that what was begun is not whole.
    Closed(Arc<Peer>, Option<String>),
}

/// Why nothing comes, for the one who waits.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) cause: String,
}

/// What every task of a source has.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) messages: mpsc::Sender<Message>,
    /// The latest problem only. A queue of them would still tell of an old one when all is well again.
    pub(crate) problem: watch::Sender<Option<Problem>>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) connections: AtomicU64,
}

impl Hub {
    fn peer(&self, name: &str) -> Arc<Peer> {
        let id = self.connections.fetch_add(1, Ordering::Relaxed);
        Arc::new(Peer { id, partition: Arc::from(name) })
    }

    fn trouble(&self, message: String, cause: impl ToString) {
        self.problem.send_replace(Some(Problem { message, cause: cause.to_string() }));
    }

    fn all_is_well(&self) {
        self.problem.send_if_modified(|problem| problem.take().is_some());
    }

    /// Returns when the source stops, or is gone.
    async fn stopped(&self) {
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// `None` if the source stops first.
    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopped() => None,
            done = work => Some(done),
        }
    }
}

/// Connect, read, and connect again, until the source stops.
pub(crate) async fn dial(endpoint: Endpoint, hub: Arc<Hub>) {
    let mut backoff = Backoff::default();
    loop {
        let attempt = timeout(CONNECT_TIMEOUT, endpoint.connect());
        match hub.unless_stopped(attempt).await {
            None => return,
            Some(Ok(Ok((stream, name)))) => {
                hub.all_is_well();
                let peer = hub.peer(&name);
                if pump(stream, peer, &hub).await {
                    backoff = Backoff::default();
                } else {
                    // Else a server that drops every client at once would look like one with nothing to say.
                    hub.trouble(format!("{endpoint} closed the connection"), "it had not sent anything");
                }
            }
            Some(Ok(Err(error))) => hub.trouble(format!("can't connect to {endpoint}"), error),
            Some(Err(_)) => {
                let seconds = CONNECT_TIMEOUT.as_secs();
                hub.trouble(format!("can't connect to {endpoint}"), format!("no answer within {seconds} s"));
            }
        }
        if hub.unless_stopped(sleep(backoff.next())).await.is_none() {
            return;
        }
    }
}

/// Accept clients and read what they send, until the source stops.
pub(crate) async fn serve(mut listener: Listener, endpoint: Endpoint, most: usize, hub: Arc<Hub>) {
    let slots = Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let mut backoff = Backoff::default();
    loop {
        while connections.try_join_next().is_some() {}
        let Some(Ok(slot)) = hub.unless_stopped(slots.clone().acquire_owned()).await else { break };
        match hub.unless_stopped(listener.accept()).await {
            None => break,
            Some(Ok((stream, name))) => {
                backoff = Backoff::default();
                hub.all_is_well();
                let (peer, hub) = (hub.peer(&name), hub.clone());
                connections.spawn(async move {
                    pump(stream, peer, &hub).await;
                    drop(slot);
                });
            }
            // Out of file descriptors, most likely: it passes.
            Some(Err(error)) => {
                hub.trouble(format!("can't accept a connection on {endpoint}"), error);
                if hub.unless_stopped(sleep(backoff.next())).await.is_none() {
                    break;
                }
            }
        }
    }
    // The port is free from here on; the clients' last bytes may still wait for room in the queue.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Read a connection to its end. Returns whether anything came.
async fn pump(mut stream: Stream, peer: Arc<Peer>, hub: &Hub) -> bool {
    let mut buffer = BytesMut::new();
    let mut received = false;
    let reason = loop {
        // Chunks share a buffer, so that many small ones don't hold a large one each.
        if buffer.capacity() < LEAST_ROOM {
            buffer.reserve(CHUNK);
        }
        match hub.unless_stopped(stream.read_buf(&mut buffer)).await {
            None => break Some("the pipeline stopped in the middle of this record".to_owned()),
            Some(Ok(0)) => break None,
            Some(Ok(_)) => {
                received = true;
                // Not cut short by a stop: these bytes exist nowhere else any more.
                if hub.messages.send(Message::Data(peer.clone(), buffer.split().freeze())).await.is_err() {
                    return received;
                }
            }
            Some(Err(error)) => break Some(format!("the connection broke in the middle of this record: {error}")),
        }
    };
    // Fails only if the source is gone.
    let _ = hub.messages.send(Message::Closed(peer, reason)).await;
    received
}

/// Waits from 100 ms up to 10 s, each twice the one before, and each cut by up to a half at random so that many clients of
/// one server don't come back in step.
#[derive(Debug, Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(10);

    fn next(&mut self) -> Duration {
        let longest = self.longest();
        self.attempts = self.attempts.saturating_add(1);
        longest.mul_f64(rand::random_range(0.5..=1.0))
    }

    fn longest(&self) -> Duration {
        Self::FIRST.saturating_mul(2u32.saturating_pow(self.attempts)).min(Self::LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_to_ten_seconds() {
        let mut backoff = Backoff::default();
        for longest in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
            let wait = backoff.next();
            let longest = Duration::from_millis(longest);
            assert!(wait <= longest && wait >= longest / 2, "{wait:?} of {longest:?}");
        }
        backoff.attempts = u32::MAX;
        assert!(backoff.next() <= Duration::from_secs(10));
    }
}
