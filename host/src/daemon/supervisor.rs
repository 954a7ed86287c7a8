//! From what lies in the directories to what runs.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use super::build::{Builder, Built, Change, Loaded, Print};
use crate::admin::{Board, Pass};
use crate::config::{self, Diagnostic, Diagnostics, Env, PipelineConfig};
use crate::pipeline::status::{PipelineStatus, Reload, State, now_millis};
use crate::pipeline::{Pipeline, Projection, ReloadError, Setup};
use crate::state::Store;

/// How long a file must be gone before its pipeline is stopped: some editors delete a file and then write it anew.
const GONE: Duration = Duration::from_millis(300);

/// A pipeline that runs, or tries to.
struct Running {
    pipeline: Pipeline,
    print: Print,
    /// What its source was told to read.
    projection: Option<Projection>,
    path: PathBuf,
    /// What only it may have, so that another one does not take it.
    exclusive: Vec<String>,
    plugins: Vec<PathBuf>,
    /// Whether its source can end.
    finite: bool,
    missing_since: Option<Instant>,
}

/// The last attempt at a file that did not work: it is not tried again until something about it changes, or somebody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rejected {
    print: Option<Print>,
    message: String,
}

/// Who wants a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The daemon starts.
    Start,
    /// Something may have changed.
    Hint,
    /// Somebody asked (SIGHUP, `POST /reload`): what was rejected is tried again, and a file that is gone is gone.
    Asked,
}

/// From what lies in the directories to what runs.
pub(super) struct Supervisor {
    paths: Vec<PathBuf>,
    builder: Builder,
    store: Store,
    board: Arc<Board>,
    running: BTreeMap<String, Running>,
    rejected: BTreeMap<String, Rejected>,
    parsed: HashMap<PathBuf, Parsed>,
    generation: u64,
    /// A file was gone at the last pass: look again soon.
    hasty: bool,
    /// What was wrong with the paths at the last pass, and is in the log.
    told: HashSet<String>,
}

/// A file as it was read at the last pass.
struct Parsed {
    hash: blake3::Hash,
    config: Result<Arc<PipelineConfig>, Diagnostics>,
}

/// A file's pipeline as it should be.
enum Wanted {
    /// Something new.
    Pipeline(Arc<PipelineConfig>, Built),
    /// What runs.
    Again,
    /// Nothing can be said.
    Broken(Diagnostics),
    /// What was tried before and did not work, with the reason.
    Rejected(String),
}

impl Supervisor {
    pub(super) fn new(paths: Vec<PathBuf>, builder: Builder, store: Store, board: Arc<Board>) -> Self {
        Supervisor {
            paths,
            builder,
            store,
            board,
            running: BTreeMap::new(),
            rejected: BTreeMap::new(),
            parsed: HashMap::new(),
            generation: 0,
            hasty: false,
            told: HashSet::new(),
        }
    }

    /// The pipelines that run or try to.
    pub(super) fn statuses(&self) -> Vec<Arc<PipelineStatus>> {
        self.running.values().map(|running| running.pipeline.status().clone()).collect()
    }

    /// Whether the source of each can end, in the same order.
    pub(super) fn finite(&self) -> Vec<bool> {
        self.running.values().map(|running| running.finite).collect()
    }

    /// What should be watched.
    pub(super) fn watched(&self) -> Vec<PathBuf> {
        let mut paths = self.paths.clone();
        paths.extend(self.builder.plugins.folders().iter().filter(|folder| folder.is_dir()).cloned());
        for running in self.running.values() {
            paths.push(running.path.clone());
            paths.extend(running.plugins.iter().cloned());
        }
        paths
    }

    /// When to look again without a hint.
    pub(super) fn next_scan(&self) -> Instant {
        Instant::now() + if self.hasty { GONE } else { super::watch::RESCAN }
    }

    /// Bring what runs in line with what lies in the directories. Whatever is wrong with one file touches no other.
    pub(super) async fn pass(&mut self, reason: Reason) -> Pass {
        self.hasty = false;
        let found = config::discover(&self.paths);
        let mut errors: Vec<(String, String)> = Vec::new();
        for problem in &found.problems {
            errors.push((problem.file.display().to_string(), problem.summary()));
        }
        self.tell(&found.problems);
        let mut wanted = BTreeMap::new();
        let mut loaded = Loaded::new();
        let mut configs = Vec::new();
        let known = std::mem::take(&mut self.parsed);
        for file in &found.files {
            match self.parse(&file.path, &known) {
                Ok(config) => configs.push(config),
                Err(problems) => {
                    wanted.insert(file.name.clone(), Wanted::Broken(problems));
                }
            }
        }
        let taken = self.taken(&configs);
        for config in configs {
            self.board.beat();
            let one = match taken.get(&config.name) {
                Some(problems) => Wanted::Broken(problems.clone()),
                None => self.want(&config, reason, &mut loaded).await,
            };
            wanted.insert(config.name.clone(), one);
        }
        let paths: HashMap<String, String> =
            found.files.iter().map(|file| (file.name.clone(), file.path.display().to_string())).collect();
        let path_of = |name: &str| paths.get(name).cloned().unwrap_or_else(|| name.to_owned());
        let mut changed = self.remove(&wanted, &found.unreadable, reason).await;
        let mut changes = Vec::new();
        for (name, one) in wanted {
            match one {
                Wanted::Again => {
                    if self.rejected.remove(&name).is_some() {
                        self.board.status_of(&name).update(|facts| facts.reload = Some(reload("unchanged", None)));
                        tracing::info!(pipeline = name, "the file is again what runs");
                    }
                }
                Wanted::Broken(problems) => {
                    errors.push((path_of(&name), problems.summary()));
                    self.reject(&name, None, &problems);
                }
                Wanted::Rejected(message) => errors.push((path_of(&name), message)),
                Wanted::Pipeline(config, built) => changes.push((config, built)),
            }
        }
        changed += self.apply(changes, &mut errors).await;
        if changed > 0 || reason == Reason::Start {
            self.generation += 1;
        }
        let pass = Pass { at: now_millis(), generation: self.generation, changed, errors };
        self.board.set_pass(pass.clone());
        pass
    }

    /// A file's configuration; taken from the last pass if its text is the same.
    fn parse(&mut self, path: &Path, known: &HashMap<PathBuf, Parsed>) -> Result<Arc<PipelineConfig>, Diagnostics> {
        let text = config::read(path)?;
        let hash = blake3::hash(text.as_bytes());
        let config = match known.get(path) {
            Some(parsed) if parsed.hash == hash => parsed.config.clone(),
            _ => config::parse(&text, path, &self.builder.registry, &Env::Process).map(Arc::new),
        };
        self.parsed.insert(path.to_owned(), Parsed { hash, config: config.clone() });
        config
    }

    /// What should become of a file that can be read. Plugins are only started if something changed.
    async fn want(&self, config: &Arc<PipelineConfig>, reason: Reason, loaded: &mut Loaded) -> Wanted {
        let found = match self.builder.find(config, Some(self.store.dir()), loaded).await {
            Ok(found) => found,
            Err(problems) => return Wanted::Broken(problems),
        };
        if self.running.get(&config.name).is_some_and(|running| running.print == found.print) {
            return Wanted::Again;
        }
        if let Some(rejected) = self.rejected.get(&config.name)
            && reason != Reason::Asked
            && rejected.print.as_ref() == Some(&found.print)
        {
            return Wanted::Rejected(rejected.message.clone());
        }
        match found.build(config).await {
            Ok(built) => Wanted::Pipeline(config.clone(), built),
            Err(problems) => Wanted::Broken(problems),
        }
    }

    /// What is wrong with the paths themselves, each in the log once for as long as it lasts.
    fn tell(&mut self, problems: &[Diagnostic]) {
        let summaries: HashSet<String> = problems.iter().map(Diagnostic::summary).collect();
        for problem in problems.iter().filter(|problem| !self.told.contains(&problem.summary())) {
            tracing::error!("{}", Diagnostics::from(problem.clone()).render(false));
        }
        for over in self.told.difference(&summaries) {
            tracing::info!("no longer so: {over}");
        }
        self.told = summaries;
    }

    /// Configurations that want what another pipeline has. One that runs keeps what it has; of new ones the first by name
    /// gets it.
    fn taken(&self, configs: &[Arc<PipelineConfig>]) -> BTreeMap<String, Diagnostics> {
        let mut order: Vec<&PipelineConfig> = configs.iter().map(Arc::as_ref).collect();
        let has_all = |config: &PipelineConfig| {
            let held = self.running.get(&config.name).map(|running| &running.exclusive);
            held.is_some_and(|held| config.exclusive().iter().all(|(what, _)| held.contains(what)))
        };
        order.sort_by_key(|config| !has_all(config));
        let mut problems: BTreeMap<String, Diagnostics> = BTreeMap::new();
        for (config, diagnostic) in config::conflicts(&order) {
            problems.entry(config.name.clone()).or_default().0.push(diagnostic);
        }
        problems
    }

    /// Stop pipelines whose file is gone. A folder that can't be read says nothing of the files in it.
    async fn remove(&mut self, wanted: &BTreeMap<String, Wanted>, unreadable: &[PathBuf], reason: Reason) -> usize {
        let mut gone = Vec::new();
        for (name, running) in &mut self.running {
            if wanted.contains_key(name) {
                running.missing_since = None;
                continue;
            }
            if unreadable.iter().any(|path| hides(path, &running.path)) {
                continue;
            }
            let since = *running.missing_since.get_or_insert_with(Instant::now);
            if reason == Reason::Asked || since.elapsed() >= GONE {
                gone.push(name.clone());
            } else {
                self.hasty = true;
            }
        }
        self.board.beat();
        let stops = gone.iter().filter_map(|name| self.running.remove(name)).map(|running| running.pipeline.stop());
        join_all(stops).await;
        for name in &gone {
            tracing::info!(pipeline = name, "its file is gone: stopped; its checkpoint is kept");
            self.board.forget(name);
        }
        let known: HashSet<&String> = wanted.keys().chain(self.running.keys()).collect();
        let forgotten: Vec<String> = self.rejected.keys().filter(|name| !known.contains(name)).cloned().collect();
        for name in forgotten {
            if !unreadable.is_empty() {
                continue;
            }
            self.rejected.remove(&name);
            self.board.forget(&name);
        }
        gone.len()
    }

    /// Start, swap or restart what differs, all at the same time: one that is slow to stop holds up no other.
    async fn apply(&mut self, changes: Vec<(Arc<PipelineConfig>, Built)>, errors: &mut Vec<(String, String)>) -> usize {
        let mut changed = 0;
        let mut reloads = Vec::new();
        for (config, built) in changes {
            let name = config.name.clone();
            let exclusive = config.exclusive().into_iter().map(|(what, _)| what).collect();
            let Some(running) = self.running.get(&name) else {
                self.start(&config, built, exclusive);
                changed += 1;
                continue;
            };
            let mut change = running.print.change(&built.print);
            let mut built = built;
            if change == Change::Transforms {
                if Projection::covers(running.projection.as_ref(), built.setup.projection.as_ref()) {
                    // The source goes on as it is, also after a failure.
                    let projection = running.projection.clone();
                    built.setup = Arc::new(Setup { projection, ..Setup::clone(&built.setup) });
                } else {
                    // The source has to read more than it does.
                    change = Change::Pipeline;
                }
            }
            reloads.push((name, config, built, exclusive, change));
        }
        self.board.beat();
        let results = join_all(reloads.iter().map(|(name, _, built, _, change)| {
            let pipeline = self.running.get(name).map(|running| &running.pipeline);
            let setup = built.setup.clone();
            async move {
                match (pipeline, change) {
                    (None, _) => Err(ReloadError("the pipeline has ended".to_owned())),
                    (Some(pipeline), Change::Pipeline) => pipeline.replace(setup).await,
                    (Some(pipeline), _) => pipeline.swap(setup).await,
                }
            }
        }))
        .await;
        for ((name, config, built, exclusive, change), result) in reloads.into_iter().zip(results) {
            match result {
                Ok(()) => {
                    changed += 1;
                    self.reloaded(&name, &config, built, exclusive, change);
                }
                Err(ReloadError(message)) => {
                    let problems = Diagnostics::from(Diagnostic::of_file(&config.path, message));
                    errors.push((config.path.display().to_string(), problems.summary()));
                    self.reject(&name, Some(built.print), &problems);
                }
            }
        }
        changed
    }

    fn start(&mut self, config: &PipelineConfig, built: Built, exclusive: Vec<String>) {
        let status = self.board.status_of(&config.name);
        status.update(|facts| {
            facts.state = State::Starting;
            facts.generation += 1;
            facts.hash = built.setup.hash.clone();
            facts.first_error = None;
            facts.reload = Some(reload("started", None));
        });
        self.rejected.remove(&config.name);
        let projection = built.setup.projection.clone();
        let pipeline = Pipeline::start(built.setup, self.store.clone(), status);
        let running = Running {
            pipeline,
            print: built.print,
            projection,
            path: config.path.clone(),
            exclusive,
            plugins: built.files,
            finite: config.source.spec.finite(),
            missing_since: None,
        };
        self.running.insert(config.name.clone(), running);
    }

    fn reloaded(&mut self, name: &str, config: &PipelineConfig, built: Built, exclusive: Vec<String>, change: Change) {
        self.rejected.remove(name);
        let Some(running) = self.running.get_mut(name) else { return };
        let kind = if change == Change::Transforms { "swapped" } else { "restarted" };
        running.pipeline.status().update(|facts| {
            facts.generation += 1;
            facts.hash = built.setup.hash.clone();
            facts.reload = Some(reload(kind, None));
        });
        running.print = built.print;
        running.projection.clone_from(&built.setup.projection);
        running.path.clone_from(&config.path);
        running.exclusive = exclusive;
        running.plugins = built.files;
        match change {
            Change::Transforms => tracing::info!(pipeline = name, "reloaded: transforms swapped in place"),
            _ => tracing::info!(pipeline = name, "reloaded: restarted from its checkpoint"),
        }
    }

    /// The file can't be used. What runs goes on; the status says what is wrong (invariant 7). Said in the log once.
    fn reject(&mut self, name: &str, print: Option<Print>, problems: &Diagnostics) {
        let rejected = Rejected { print, message: problems.summary() };
        if self.rejected.get(name) == Some(&rejected) {
            return;
        }
        let status = self.board.status_of(name);
        let runs = self.running.contains_key(name);
        tracing::error!(
            pipeline = name,
            "{}\n{}",
            if runs { "the changed file can't be used; what ran before goes on" } else { "the file can't be used" },
            problems.render(false)
        );
        status.update(|facts| facts.reload = Some(reload("rejected", Some(rejected.message.clone()))));
        if !runs {
            status.trouble(&rejected.message);
            status.enter(State::Failed);
        }
        self.rejected.insert(name.to_owned(), rejected);
    }

    /// Stop everything, in good order and at the same time.
    pub(super) async fn stop(&mut self) {
        let running = std::mem::take(&mut self.running);
        join_all(running.into_values().map(|running| running.pipeline.stop())).await;
    }
}

fn reload(kind: &'static str, error: Option<String>) -> Reload {
    Reload { at: now_millis(), kind, error }
}

/// Whether `path`, which can't be read, says nothing of `file`: it is its folder, or the file itself while its folder can't
/// be read either.
fn hides(path: &Path, file: &Path) -> bool {
    if path == file {
        return !file.parent().is_some_and(|parent| parent.as_os_str().is_empty() || parent.is_dir());
    }
    file.starts_with(path)
}
