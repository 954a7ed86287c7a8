//! The messages of a consumer, many at a time.
//!
//! librdkafka hands out one message a poll, each with a lock, a clock and an event of its own. So messages have a queue apart
//! from everything else that a poll brings (rebalances, answers to commits, errors), and are taken from it in bulk.

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings::{
    self, rd_kafka_message_t, rd_kafka_queue_t, rd_kafka_resp_err_t, rd_kafka_t, rd_kafka_timestamp_type_t,
};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

/// Messages that are taken at once, at most.
const MOST: usize = 512;

/// Something has come, or is to be looked at.
#[derive(Debug, Default)]
pub(super) struct Signal {
    raised: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn raised(&self) -> MutexGuard<'_, bool> {
        self.raised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn raise(&self) {
        *self.raised() = true;
        self.changed.notify_one();
    }

    /// Wait until it is raised, and lower it; no longer than `most`.
    pub(super) fn wait(&self, most: Duration) {
        let deadline = Instant::now() + most;
        let mut raised = self.raised();
        while !*raised {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            raised = self.changed.wait_timeout(raised, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *raised = false;
    }
}

/// librdkafka's own handle of a queue.
struct Handle(*mut rd_kafka_queue_t);

// SAFETY: librdkafka's queues have locks of their own, and are used from any thread.
unsafe impl Send for Handle {}

/// Where the messages of a consumer are collected, once it is there. It is closed before the consumer goes.
#[derive(Default)]
pub(super) struct Inbox {
    queue: Mutex<Option<Handle>>,
    pub(super) signal: Arc<Signal>,
}

impl Inbox {
    fn queue(&self) -> MutexGuard<'_, Option<Handle>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Have the messages of these partitions come here, before they are assigned.
    pub(super) fn collect<C: ConsumerContext>(&self, consumer: &BaseConsumer<C>, partitions: &[(String, i32)]) {
        let queue = self.queue();
        let Some(Handle(queue)) = *queue else { return };
        for (topic, number) in partitions {
            // Kafka's names have no zero byte. What is not collected comes with a poll.
            let Ok(topic) = CString::new(topic.as_str()) else { continue };
            // SAFETY: the consumer is alive, and so is the inbox's queue while its lock is held. The partition's queue is
            // given back; it stays forwarded.
            unsafe {
                let own =
                    bindings::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), *number);
                if !own.is_null() {
                    bindings::rd_kafka_queue_forward(own, queue);
                    bindings::rd_kafka_queue_destroy(own);
                }
            }
        }
    }
}

/// Takes messages out of an inbox. Whoever has it also has the consumer, and drops this first.
pub(super) struct Incoming {
    inbox: Arc<Inbox>,
    queue: Handle,
    /// The consumer's own queue, of all that is no message.
    events: Handle,
    /// Bytes of the largest of the last messages; 0 before the first.
    largest: usize,
}

impl Incoming {
    /// Open the inbox of a consumer that has no partitions yet.
    pub(super) fn open<C: ConsumerContext>(consumer: &mut BaseConsumer<C>, inbox: Arc<Inbox>) -> Self {
        let signal = inbox.signal.clone();
        consumer.set_nonempty_callback(move || signal.raise());
        // SAFETY: the consumer is alive. The signal lives as long as the inbox, which `self` keeps until the callback is
        // turned off.
        let (queue, events) = unsafe {
            let queue = bindings::rd_kafka_queue_new(consumer.client().native_ptr());
            bindings::rd_kafka_queue_cb_event_enable(queue, Some(raise), Arc::as_ptr(&inbox.signal).cast_mut().cast());
            (queue, bindings::rd_kafka_queue_get_consumer(consumer.client().native_ptr()))
        };
        *inbox.queue() = Some(Handle(queue));
        Incoming { inbox, queue: Handle(queue), events: Handle(events), largest: 0 }
    }

    /// What is there: at most `rows` messages, and about `bytes`, if they are as large as the last ones. Does not wait.
    pub(super) fn take(&mut self, rows: usize, bytes: usize) -> Vec<Message> {
        let most = match self.largest {
            // Nothing is known yet.
            0 => 1,
            largest => (bytes / largest).min(rows).clamp(1, MOST),
        };
        let mut messages = Vec::<Message>::with_capacity(most);
        // SAFETY: the queue is alive until `self` is dropped. There is room for so many pointers, which is what messages
        // are, and those that are written are ours.
        unsafe {
            let count = bindings::rd_kafka_consume_batch_queue(self.queue.0, 0, messages.as_mut_ptr().cast(), most);
            messages.set_len(usize::try_from(count).unwrap_or(0).min(most));
        }
        if let Some(largest) = messages.iter().map(Message::size).max() {
            self.largest = largest.max(1);
        }
        messages
    }

    /// Whether a poll of the consumer would bring something.
    pub(super) fn has_events(&self) -> bool {
        // SAFETY: the queue is alive until `self` is dropped; without a group there is none.
        !self.events.0.is_null() && unsafe { bindings::rd_kafka_queue_length(self.events.0) > 0 }
    }

    /// Wait until something has come, messages or anything else; no longer than `most`.
    pub(super) fn wait(&self, most: Duration) {
        self.inbox.signal.wait(most);
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // Nothing is sent here from now on.
        *self.inbox.queue() = None;
        // SAFETY: nobody else has the queue any more, and the consumer is still there. After the first call the callback
        // is not called again.
        unsafe {
            bindings::rd_kafka_queue_cb_event_enable(self.queue.0, None, std::ptr::null_mut());
            bindings::rd_kafka_queue_destroy(self.queue.0);
            if !self.events.0.is_null() {
                bindings::rd_kafka_queue_destroy(self.events.0);
            }
        }
    }
}

unsafe extern "C" fn raise(_: *mut rd_kafka_t, signal: *mut c_void) {
    // SAFETY: it is the inbox's signal, which outlives the callback.
    unsafe { &*signal.cast::<Signal>() }.raise();
}

/// A message, or an error in a message's place. It goes back to librdkafka when it is dropped.
#[repr(transparent)]
pub(super) struct Message(NonNull<rd_kafka_message_t>);

impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: librdkafka has handed it out, and it is given back once.
        unsafe { bindings::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

impl Message {
    fn get(&self) -> &rd_kafka_message_t {
        // SAFETY: librdkafka has handed it out, and it is alive until `self` is dropped.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn error(&self) -> Option<RDKafkaErrorCode> {
        let error = self.get().err;
        (error != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| error.into())
    }

    pub(super) fn topic(&self) -> &str {
        let topic = self.get().rkt;
        if topic.is_null() {
            return "";
        }
        // SAFETY: a message keeps its topic, and the topic its name, which is a C string.
        let name = unsafe { CStr::from_ptr(bindings::rd_kafka_topic_name(topic)) };
        // Kafka's names are ASCII.
        name.to_str().unwrap_or_default()
    }

    /// The same for all messages of a topic, as long as it is assigned.
    pub(super) fn topic_id(&self) -> usize {
        self.get().rkt.addr()
    }

    pub(super) fn partition(&self) -> i32 {
        self.get().partition
    }

    pub(super) fn offset(&self) -> i64 {
        self.get().offset
    }

    pub(super) fn value(&self) -> Option<&[u8]> {
        let message = self.get();
        // SAFETY: a pointer that is not null has so many bytes, and they live as long as the message.
        unsafe { bytes(message.payload, message.len) }
    }

    pub(super) fn key(&self) -> Option<&[u8]> {
        let message = self.get();
        // SAFETY: as above.
        unsafe { bytes(message.key, message.key_len) }
    }

    fn size(&self) -> usize {
        self.get().len.saturating_add(self.get().key_len)
    }

    /// Milliseconds since the epoch, if the message has a time.
    pub(super) fn millis(&self) -> Option<i64> {
        let mut kind = rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is alive; `kind` is a place for what is found.
        let millis = unsafe { bindings::rd_kafka_message_timestamp(self.0.as_ptr(), &raw mut kind) };
        (kind != rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis != -1).then_some(millis)
    }

    /// For librdkafka's own functions.
    pub(super) fn raw(&self) -> *const rd_kafka_message_t {
        self.0.as_ptr()
    }
}

/// # Safety
/// A pointer that is not null has so many bytes, for as long as `'a`.
unsafe fn bytes<'a>(start: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller says so.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), length) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_was_raised_before_is_not_waited_for() {
        let signal = Arc::new(Signal::default());
        signal.raise();
        signal.wait(Duration::MAX / 4);
        let other = signal.clone();
        let waiting = std::thread::spawn(move || other.wait(Duration::from_secs(3600)));
        signal.raise();
        waiting.join().unwrap();
        // Lowered again: only the time ends this.
        signal.wait(Duration::from_millis(1));
    }

    #[test]
    fn an_inbox_outlives_its_consumer_and_what_is_in_it() {
        let mut config = rdkafka::ClientConfig::new();
        config.set("group.id", "g").set("test.mock.num.brokers", "1").set("auto.offset.reset", "earliest");
        let mut consumer: BaseConsumer = config.create().unwrap();
        let inbox = Arc::new(Inbox::default());
        // Nobody is there yet.
        inbox.collect(&consumer, &[("t".to_owned(), 0)]);
        let mut incoming = Incoming::open(&mut consumer, inbox.clone());
        inbox.collect(&consumer, &[("t".to_owned(), 0), ("a\0b".to_owned(), 1)]);
        assert!(incoming.take(10, 1000).is_empty());
        drop(incoming);
        inbox.collect(&consumer, &[("t".to_owned(), 0)]);
        drop(consumer);
        inbox.signal.raise();
    }
}
