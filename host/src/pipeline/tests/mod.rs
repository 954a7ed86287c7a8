//! The engine against connectors that do as the test says, with time paused and a real state store. Each test names the
//! invariant of `docs/invariants.md` that it holds.

mod crashes;
mod delivery;
mod failures;
mod letters;
mod memory;
mod phases;
mod reload;
mod retries;
mod simulation;
mod stopping;
