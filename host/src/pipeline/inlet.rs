//! Where messages come into a sink: from one stage, or, into the dead letters, from several.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use super::{Barrier, Message};

/// Several streams as one. A barrier comes out once it has come in from every stream, and a stream that has brought it
/// is held until then: what comes out before the barrier is what came in before it, in whichever stream (the aligned
/// barriers of Carbone et al., "Lightweight Asynchronous Snapshots for Distributed Dataflows", 2015).
///
/// Holding a stream can't block for ever: a stage passes a barrier on to the next stages before anything that follows
/// it, so the barrier is on its way to every stream that is waited for.
pub(super) struct Inlet {
    lanes: Vec<Lane>,
    /// The lane to look at first, so that none is starved.
    turn: usize,
    barrier: Option<Barrier>,
}

struct Lane {
    input: mpsc::Receiver<Message>,
    state: LaneState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LaneState {
    Flowing,
    /// It has brought the barrier that the others have not.
    Held,
    Ended,
}

impl Inlet {
    pub(super) fn new(inputs: impl IntoIterator<Item = mpsc::Receiver<Message>>) -> Self {
        let lanes = inputs.into_iter().map(|input| Lane { input, state: LaneState::Flowing }).collect();
        Inlet { lanes, turn: 0, barrier: None }
    }

    /// The next message; `None` once every stream has ended. Cancel safe.
    pub(super) async fn recv(&mut self) -> Option<Message> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        let count = self.lanes.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some(lane) = self.lanes.get_mut(index).filter(|lane| lane.state == LaneState::Flowing) else {
                continue;
            };
            match lane.input.poll_recv(context) {
                Poll::Ready(Some(batch @ Message::Batch(..))) => {
                    self.turn = index + 1;
                    return Poll::Ready(Some(batch));
                }
                Poll::Ready(Some(Message::Barrier(barrier))) => {
                    lane.state = LaneState::Held;
                    self.barrier = Some(barrier);
                }
                Poll::Ready(None) => lane.state = LaneState::Ended,
                Poll::Pending => {}
            }
        }
        if self.lanes.iter().any(|lane| lane.state == LaneState::Flowing) {
            return Poll::Pending;
        }
        for lane in self.lanes.iter_mut().filter(|lane| lane.state == LaneState::Held) {
            lane.state = LaneState::Flowing;
        }
        Poll::Ready(self.barrier.take().map(Message::Barrier))
    }
}

#[cfg(test)]
mod tests {
    use acequia_connector_api::Batch;
    use futures::FutureExt;

    use super::*;

    fn batch() -> Message {
        Message::Batch(Batch::of_failures(Vec::new()), None)
    }

    fn barrier(number: u64) -> Message {
        Message::Barrier(Barrier { number, last: false })
    }

    /// What comes out until it has to wait; a batch is `b`, a barrier its number, the end `.`.
    fn drain(inlet: &mut Inlet) -> String {
        let mut out = String::new();
        while let Some(message) = inlet.recv().now_or_never() {
            match message {
                Some(Message::Batch(..)) => out.push('b'),
                Some(Message::Barrier(barrier)) => out.push_str(&barrier.number.to_string()),
                None => {
                    out.push('.');
                    break;
                }
            }
        }
        out
    }

    // invariant 2
    #[test]
    fn a_barrier_waits_for_every_stream_and_holds_those_that_have_brought_it() {
        let (a, first) = mpsc::channel(8);
        let (b, second) = mpsc::channel(8);
        let mut inlet = Inlet::new([first, second]);
        a.try_send(batch()).unwrap();
        a.try_send(barrier(1)).unwrap();
        a.try_send(batch()).unwrap();
        b.try_send(batch()).unwrap();
        assert_eq!(drain(&mut inlet), "bb", "what follows the barrier in the first stream is held");
        b.try_send(batch()).unwrap();
        assert_eq!(drain(&mut inlet), "b");
        b.try_send(barrier(1)).unwrap();
        b.try_send(batch()).unwrap();
        assert_eq!(drain(&mut inlet), "1bb");
        drop(a);
        b.try_send(barrier(2)).unwrap();
        assert_eq!(drain(&mut inlet), "2", "a stream that has ended is not waited for");
        drop(b);
        assert_eq!(drain(&mut inlet), ".");
    }
}
