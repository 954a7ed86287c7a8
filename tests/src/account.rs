//! The account of a pipeline's rows (invariant 3).

use serde_json::Value;

/// What one stage has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its id.
    pub id: String,
    /// Rows that came to it.
    pub rows_in: u64,
    /// Rows that it gave on.
    pub rows_out: u64,
    /// Rows left out on purpose.
    pub dropped: u64,
    /// Output rows beyond one for each input row.
    pub added: u64,
    /// Rows that failed.
    pub dead: u64,
}

/// The counts of all stages of a pipeline at rest, in order of flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account(pub Vec<Stage>);

impl Account {
    /// From the status of a pipeline.
    pub fn of(status: &Value) -> Self {
        let stages = status["acequia"]["stages"].as_array().cloned().unwrap_or_default();
        let count =
            |stage: &Value, what: &str| stage[what].as_u64().unwrap_or_else(|| panic!("no `{what}` in {stage}"));
        let stages = stages.iter().map(|stage| Stage {
            id: stage["id"].as_str().unwrap_or_default().to_owned(),
            rows_in: count(stage, "rows_in"),
            rows_out: count(stage, "rows_out"),
            dropped: count(stage, "dropped"),
            added: count(stage, "added"),
            dead: count(stage, "dead"),
        });
        Account(stages.collect())
    }

    /// A stage by its id.
    ///
    /// # Panics
    /// If there is none.
    pub fn stage(&self, id: &str) -> &Stage {
        let found = self.0.iter().find(|stage| stage.id == id);
        found.unwrap_or_else(|| panic!("no stage `{id}` in {self:?}"))
    }

    /// Rows that failed in any stage.
    pub fn dead(&self) -> u64 {
        self.0.iter().map(|stage| stage.dead).sum()
    }

    /// Every stage's account is even, and what one gives on comes to the next. For a pipeline with one sink, called
    /// `sink`, that is at rest: a running one may be seen in the middle of a batch.
    ///
    /// # Panics
    /// If a row is missing or there is one too many.
    #[track_caller]
    pub fn check(&self, sink: &str, letters: bool) {
        for stage in &self.0 {
            let Stage { rows_in, rows_out, dropped, added, dead, .. } = stage;
            assert_eq!(rows_in + added, rows_out + dropped + dead, "{stage:?}");
        }
        let chain: Vec<&Stage> = self.0.iter().take_while(|stage| stage.id != "dead-letter").collect();
        assert_eq!(chain.last().map(|stage| stage.id.as_str()), Some(sink), "{self:?}");
        for pair in chain.windows(2) {
            assert_eq!(pair[0].rows_out, pair[1].rows_in, "{} -> {}: {self:?}", pair[0].id, pair[1].id);
        }
        if letters {
            let letters = self.stage("dead-letter");
            assert_eq!(letters.rows_out, self.dead() - letters.dead, "every failed row has its letter: {self:?}");
        }
    }
}
