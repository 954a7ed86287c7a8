//! Calls of librdkafka that block.

use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::time::Duration;

use acequia_connector_api::ConnectorError;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};

/// The longest that a call may take. Each has a time-out of its own, of seconds; but librdkafka waits by the wall clock
/// (`cnd_timedwait`), so a clock that is set back by hours makes a wait of seconds one of hours. The engine's clock only
/// goes forward.
const LONGEST: Duration = Duration::from_secs(30);

/// Run it in a thread for such calls.
///
/// # Errors
/// If it panics, or does not come back in time: then its client is left to itself, and another has to be made.
pub(crate) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ConnectorError> {
    blocking_for(LONGEST, call).await
}

async fn blocking_for<T: Send + 'static>(
    longest: Duration,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ConnectorError> {
    // Not one of the runtime's own threads for such work: the runtime waits for those when it ends.
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("kafka call".to_owned())
        .spawn(move || drop(answer.send(call())))
        .map_err(|error| ConnectorError::failed("a thread for librdkafka can't be started").because(error))?;
    match tokio::time::timeout(longest, answered).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(ConnectorError::failed("a call of librdkafka did not come to its end").because(error)),
        Err(_) => Err(ConnectorError::failed(format!(
            "a call of librdkafka has not come back after {longest:?}; a clock that was set back makes it wait"
        ))),
    }
}

/// Close a consumer. To drop one does that, too, but looks only ten times a second whether it is done. Blocks.
pub(crate) fn close<C: ConsumerContext>(consumer: &BaseConsumer<C>) {
    if consumer.close_queue().is_ok() {
        while !consumer.closed() {
            // Runs the callbacks of the end.
            let _ = consumer.poll(Duration::from_millis(1));
        }
    }
}

/// A client that is dropped in a thread of its own: to drop one joins its threads, which may wait as long, and whoever
/// drops it is one of the runtime's threads.
pub(crate) struct Apart<T: Send + 'static>(ManuallyDrop<T>);

impl<T: Send> Apart<T> {
    pub(crate) fn new(client: T) -> Self {
        Apart(ManuallyDrop::new(client))
    }
}

impl<T: Send + Clone> Clone for Apart<T> {
    fn clone(&self) -> Self {
        Apart(self.0.clone())
    }
}

impl<T: Send> Deref for Apart<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + 'static> Drop for Apart<T> {
    fn drop(&mut self) {
        // SAFETY: it is taken here only, and nothing uses it after its `drop`.
        let client = unsafe { ManuallyDrop::take(&mut self.0) };
        // Without a thread the closure, and the client with it, is dropped here.
        let _ = std::thread::Builder::new().name("kafka close".to_owned()).spawn(move || drop(client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_call_that_does_not_come_back_is_given_up() {
        assert_eq!(blocking(|| 7).await.unwrap(), 7);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let error = blocking_for(Duration::from_millis(50), move || held.recv()).await.unwrap_err();
        assert!(error.to_string().contains("50ms") && error.to_string().contains("clock"), "{error}");
        drop(hold);
    }

    #[test]
    fn a_client_is_dropped_elsewhere() {
        struct Client(std::sync::mpsc::Sender<std::thread::ThreadId>);
        impl Drop for Client {
            fn drop(&mut self) {
                let _ = self.0.send(std::thread::current().id());
            }
        }
        let (tell, told) = std::sync::mpsc::channel();
        drop(Apart::new(Client(tell)));
        assert_ne!(told.recv().unwrap(), std::thread::current().id());
        assert!(told.recv().is_err(), "once");
    }

    #[tokio::test]
    async fn a_call_that_panics_is_an_error() {
        let error = blocking(|| -> u8 { panic!("on purpose") }).await.unwrap_err();
        assert!(error.to_string().contains("did not come to its end"), "{error}");
    }
}
