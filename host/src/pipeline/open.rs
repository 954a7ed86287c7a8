//! A run of a pipeline is opened: everything that it is made of, from a checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use acequia_connector_api::{Demand, Sink, Source};
use tokio::sync::mpsc;

use super::chain::{Chain, ChainTask, Record};
use super::dead_letters::FailureRoute;
use super::error::RunError;
use super::inlet::Inlet;
use super::pace::Pace;
use super::run::{Run, Tasks};
use super::setup::Setup;
use super::sink::{Refused, SinkTask};
use super::source::{STAGE as SOURCE, SourceTask};
use super::status::{CheckpointStatus, PipelineStatus, now_millis};
use crate::config::model::SinkStage;
use crate::state::{Checkpoint, SinkState, Store};

/// What is behind the source, open.
struct Outputs {
    chain: Chain,
    sinks: Vec<Box<dyn Sink>>,
    letters: Option<Box<dyn Sink>>,
    /// The sinks' states as they are now.
    states: BTreeMap<String, SinkState>,
}

impl Outputs {
    async fn open(
        setup: &Setup,
        checkpoint: Option<&Checkpoint>,
        careful: bool,
        status: &PipelineStatus,
    ) -> Result<Self, RunError> {
        let nothing = Checkpoint::default();
        let last = checkpoint.unwrap_or(&nothing);
        let input = setup.source.spec.schema();
        let chain = Chain::start(&setup.transforms, &input, &last.snapshots, careful, status).await?;
        let mut sinks = Vec::new();
        let mut states = BTreeMap::new();
        for stage in &setup.sinks {
            sinks.push(open_sink(setup, stage, last, &mut states).await?);
        }
        let letters = match &setup.dead_letter {
            Some(stage) => Some(open_sink(setup, stage, last, &mut states).await?),
            None => None,
        };
        Ok(Outputs { chain, sinks, letters, states })
    }

    /// The sink in two phases in which the checkpoint never came to count.
    fn rolled_back<'a>(&self, setup: &'a Setup) -> Option<&'a SinkStage> {
        let mut sinks = setup.sinks.iter().zip(&self.sinks);
        sinks.find(|(stage, sink)| stage.spec.two_phase() && sink.rolled_back()).map(|(stage, _)| stage)
    }
}

/// A sink in two phases did not come to commit the last checkpoint: the one before it is the last again (invariant 2).
async fn go_back(setup: &Setup, store: &Store, sink: &SinkStage) -> Result<Checkpoint, RunError> {
    let stored = |error: crate::state::StateError| RunError::new("checkpoint", error.to_string());
    let previous = store.load_previous(&setup.name).await.map_err(stored)?;
    let previous = previous.ok_or_else(|| {
        RunError::new(&sink.id, "the last checkpoint was not committed in the target, and there is none before it")
    })?;
    tracing::info!(
        pipeline = setup.name,
        stage = sink.id,
        checkpoint = previous.number,
        "the process ended between a checkpoint and its commit; the pipeline goes on from the checkpoint before it"
    );
    store.save(&setup.name, Arc::new(previous.clone())).await.map_err(stored)?;
    Ok(previous)
}

/// What is open.
struct Stages {
    source: Box<dyn Source>,
    chain: Chain,
    sinks: Vec<Box<dyn Sink>>,
    letters: Option<Box<dyn Sink>>,
}

impl Run {
    /// Open everything, transforms first (they touch nothing outside), the source last (so that no row is taken before
    /// there is a place for it), and store a first checkpoint if the sinks are not where the last one left them.
    pub(super) async fn open(
        setup: Arc<Setup>,
        store: Store,
        status: Arc<PipelineStatus>,
        careful: bool,
    ) -> Result<Self, RunError> {
        let stored = |error: crate::state::StateError| RunError::new("checkpoint", error.to_string());
        status.arrange(&setup.stage_ids());
        status.update(|facts| facts.connectors = setup.connectors());
        let mut checkpoint = store.load(&setup.name).await.map_err(stored)?;
        let mut open = Outputs::open(&setup, checkpoint.as_ref(), careful, &status).await?;
        if let Some(sink) = open.rolled_back(&setup) {
            drop(open);
            checkpoint = Some(go_back(&setup, &store, sink).await?);
            open = Outputs::open(&setup, checkpoint.as_ref(), careful, &status).await?;
        }
        let Outputs { chain, sinks, letters, states } = open;
        let known = checkpoint.is_some();
        let mut last = checkpoint.unwrap_or_default();
        remember(&status, &last);
        for (id, counters) in status.stages() {
            counters.set(last.counts.get(&id).copied().unwrap_or_default());
        }
        let position = (last.source_type == setup.source.spec.type_name()).then_some(&last.position);
        if known && position.is_none() {
            tracing::warn!(
                pipeline = setup.name,
                before = last.source_type,
                now = setup.source.spec.type_name(),
                "the source is of another type than before: it starts from its beginning"
            );
        }
        let source = setup
            .source
            .spec
            .open(&setup.context(SOURCE), position)
            .await
            .map_err(|error| RunError::connector(SOURCE, &error))?;

        let first = source.position();
        if !known || last.sinks != states || position != Some(&first) {
            // Invariant 4: a crash before the next checkpoint must find the sinks as they are now (a file as long as it is now), and
            // the source where it is now, or rows that were written meanwhile would come twice.
            last.number += 1;
            last.at = now_millis();
            last.position = first;
            last.source_type = setup.source.spec.type_name().to_owned();
            last.sinks = states;
            store.save(&setup.name, Arc::new(last.clone())).await.map_err(stored)?;
        }
        // Only its number is of use from here on.
        last.snapshots.clear();
        Ok(Run::spawn(setup, store, status, Stages { source, chain, sinks, letters }, last, careful))
    }

    fn spawn(
        setup: Arc<Setup>,
        store: Store,
        status: Arc<PipelineStatus>,
        stages: Stages,
        last: Checkpoint,
        careful: bool,
    ) -> Self {
        // Before any stage can say otherwise.
        status.opened();
        let capacity = setup.delivery.in_flight.max(1);
        let mut tasks = Tasks::of(setup.share.clone());
        let (report, reports) = mpsc::channel(16);
        let mut committed = Vec::new();
        let mut second_phase = None;
        let mut sink_task = |stage: &SinkStage, sink: Box<dyn Sink>, input: Inlet, refused: Refused| {
            let (commit, commits) = mpsc::channel(1);
            let two_phase = stage.spec.two_phase();
            if two_phase {
                second_phase = Some(committed.len());
            }
            committed.push(commit);
            SinkTask {
                id: stage.id.clone(),
                sink,
                input,
                committed: commits,
                two_phase,
                reports: report.clone(),
                refused,
                counters: status.stage(&stage.id),
                status: status.clone(),
            }
        };
        // Each stage that can have failed rows has a way of its own to the dead letters.
        let mut lanes = Vec::new();
        let has_letters = setup.dead_letter.is_some();
        let mut route = || {
            let letters = has_letters.then(|| {
                let (lane, input) = mpsc::channel(capacity);
                lanes.push(input);
                lane
            });
            FailureRoute { pipeline: setup.name.as_str().into(), on_error: setup.on_error, letters }
        };
        let mut outputs = Vec::new();
        for (stage, sink) in setup.sinks.iter().zip(stages.sinks) {
            let (output, input) = mpsc::channel(capacity);
            outputs.push(output);
            tasks.spawn(&stage.id, sink_task(stage, sink, Inlet::new([input]), Refused::Route(route())).run());
        }
        let (chain_commands, commands) = mpsc::unbounded_channel();
        let (to_chain, chain_input) = mpsc::channel(capacity);
        let chain = ChainTask {
            chain: stages.chain,
            record: Record::of(&setup),
            input: chain_input,
            commands,
            outputs,
            failures: route(),
            reports: report.clone(),
            status: status.clone(),
        };
        tasks.spawn("transforms", chain.run());
        if let (Some(stage), Some(sink)) = (&setup.dead_letter, stages.letters) {
            tasks.spawn(&stage.id, sink_task(stage, sink, Inlet::new(lanes), Refused::Fatal).run());
        }
        let (source_commands, commands) = mpsc::channel(4);
        let demand = Demand::new();
        let mut source = stages.source;
        source.set_demand(demand.clone());
        let source = SourceTask {
            source,
            demand,
            commands,
            output: to_chain,
            reports: report,
            counters: status.stage(SOURCE),
            status: status.clone(),
        };
        tasks.spawn_source(source.run());
        Run {
            setup,
            store,
            pulse: status.pulse(),
            status,
            tasks,
            source: source_commands,
            chain: chain_commands,
            committed,
            two_phase: second_phase,
            reports,
            swap: None,
            last,
            careful,
            made: 0,
            pace: Pace::default(),
        }
    }
}

/// The daemon may be new, but the pipeline's last checkpoint is not.
fn remember(status: &PipelineStatus, last: &Checkpoint) {
    status.update(|facts| {
        if facts.checkpoint.at == 0 {
            facts.checkpoint = CheckpointStatus {
                number: last.number,
                at: last.at,
                took_micros: 0,
                bytes: last.snapshots.values().map(|bytes| bytes.len() as u64).sum(),
            };
        }
    });
}

async fn open_sink(
    setup: &Setup,
    stage: &SinkStage,
    last: &Checkpoint,
    states: &mut BTreeMap<String, SinkState>,
) -> Result<Box<dyn Sink>, RunError> {
    let sink_type = stage.spec.type_name();
    let state = last.sinks.get(&stage.id).filter(|state| state.sink_type == sink_type).map(|state| &state.state);
    let failed = |error| RunError::connector(&stage.id, &error);
    let mut sink = stage.spec.open(&setup.context(&stage.id), state).await.map_err(failed)?;
    if let Some(state) = sink.flush().await.map_err(failed)?.state {
        states.insert(stage.id.clone(), SinkState { sink_type: sink_type.to_owned(), state });
    }
    Ok(sink)
}
