//! What can be wrong with the state folder.

use std::path::PathBuf;
use std::sync::Arc;

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

/// Something is wrong with the state folder or what is in it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StateError {
    /// The folder can't be made or written.
    #[error("the state folder {dir} can't be used: {error}", dir = dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// Why.
        #[source]
        error: Arc<std::io::Error>,
    },
    /// Another daemon has it.
    #[error(
        "the state folder {dir} is in use by process {holder}: stop that daemon, or give this one a folder of its own with --state",
        dir = dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The other's process number.
        holder: String,
    },
    /// There is no state in the folder.
    #[error("there is no state in {dir}: no daemon has stored a checkpoint there; `--state DIR` names another folder", dir = dir.display())]
    Missing {
        /// The folder.
        dir: PathBuf,
    },
    /// The database fails.
    #[error("the state file {file} can't be used: {error}", file = file.display())]
    Database {
        /// The file.
        file: PathBuf,
        /// Why.
        error: String,
    },
    /// The file as a whole is not what was written.
    #[error(
        "the state file {file} is damaged: {error}; no checkpoint was read from it and nothing in it was changed: put back a copy of the state folder, or, to start every pipeline from its beginning, move this file away",
        file = file.display()
    )]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        error: String,
    },
    /// A later version of acequia has written it.
    #[error(
        "the state file {file} has format {format} and was written by acequia {by}; this is acequia {this}, which reads up to format {known}: run acequia {by} or later, or give this one a folder of its own with --state",
        file = file.display(), this = env!("CARGO_PKG_VERSION"), known = super::layout::FORMAT
    )]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        format: u64,
        /// The version that wrote it.
        by: String,
    },
    /// One entry is not what was written.
    #[error(
        "the checkpoint of pipeline `{pipeline}` in {file} is damaged: {error}; nothing was read from it: put back a copy of the state folder, or stop the daemon and forget it with `acequia state reset {pipeline} --state {dir}`: the pipeline then starts from its beginning",
        file = file.display(), dir = file.parent().unwrap_or(file).display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// The pipeline.
        pipeline: String,
        /// What is wrong.
        error: String,
    },
    /// The store's thread has ended.
    #[error("the state store has been closed")]
    Closed,
}

/// Why work with the database came to nothing; without the file's name.
#[derive(Debug)]
pub(super) enum Failure {
    /// The database says so.
    Redb(redb::Error),
    /// What is in it is not what was written.
    Corrupt(String),
    /// It has a later format.
    Newer {
        /// Its number.
        format: u64,
        /// The version that wrote it.
        by: String,
    },
}

impl Failure {
    pub(super) fn of_file(self, file: &std::path::Path) -> StateError {
        let file = file.to_owned();
        match self {
            Failure::Redb(redb::Error::Corrupted(error)) | Failure::Corrupt(error) => {
                StateError::Corrupt { file, error }
            }
            Failure::Redb(error) => StateError::Database { file, error: error.to_string() },
            Failure::Newer { format, by } => StateError::Newer { file, format, by },
        }
    }
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Failure::Redb(error.into())
            }
        })*
    };
}

from_redb!(StorageError, TransactionError, CommitError, DatabaseError, std::io::Error);

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            // A table that is not as it was made.
            error => Failure::Corrupt(error.to_string()),
        }
    }
}

/// As the database itself says it.
pub(super) fn corrupt(error: impl Into<String>) -> DatabaseError {
    DatabaseError::Storage(StorageError::Corrupted(error.into()))
}
