//! A state file with changed bytes: the checkpoint that was stored, or an error; never another one, never none.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use acequia::state::{Checkpoint, SinkState, StateError, Store};
use acequia_connector_api::Position;
use arbitrary::{Result, Unstructured};
use serde_json::json;

const FILE: &str = "acequia.redb";
const PIPELINES: [&str; 3] = ["seq", "a", "b"];

pub(crate) fn run(data: &[u8]) {
    let _ = inputs(&mut Unstructured::new(data));
}

fn inputs(input: &mut Unstructured<'_>) -> Result<()> {
    let mut file = original().clone();
    while !input.is_empty() {
        let place = input.arbitrary::<u32>()? as usize % file.len().max(1);
        match input.arbitrary::<u8>()? % 8 {
            0 => file.truncate(place),
            1 => {
                let end = (place + input.arbitrary::<u16>()? as usize).min(file.len());
                file[place..end].fill(input.arbitrary()?);
            }
            2 => {
                let end = (place + input.arbitrary::<u8>()? as usize).min(file.len());
                let from = input.arbitrary::<u32>()? as usize % (file.len() - (end - place) + 1);
                file.copy_within(from..from + (end - place), place);
            }
            _ => {
                if let Some(byte) = file.get_mut(place) {
                    *byte ^= input.arbitrary::<u8>()?;
                }
            }
        }
    }
    let dir = folder();
    std::fs::write(dir.path().join(FILE), &file).expect("a file can be written");
    check(dir.path());
    Ok(())
}

fn check(dir: &Path) {
    runtime().block_on(async {
        let Ok(store) = Store::open(dir) else { return };
        for (index, name) in PIPELINES.iter().enumerate() {
            match store.load(name).await {
                Ok(found) => assert_eq!(found.as_ref(), Some(&checkpoint(index as u64)), "of `{name}`"),
                Err(error) => assert!(!matches!(error, StateError::Closed), "the store's thread has ended"),
            }
        }
    });
}

fn checkpoint(index: u64) -> Checkpoint {
    Checkpoint {
        number: 42 + index,
        at: 1_586_779_777_768,
        source_type: "kafka".to_owned(),
        position: Position::single(json!({ "offset": 7 + index })),
        sinks: [("file".to_owned(), SinkState { sink_type: "file".to_owned(), state: json!({ "length": 12 }) })].into(),
        counts: Default::default(),
        snapshots: [("word-count".to_owned(), vec![index as u8; 100 * index as usize])].into(),
    }
}

/// A file as the daemon leaves it: several checkpoints of several pipelines.
fn original() -> &'static Vec<u8> {
    static ORIGINAL: OnceLock<Vec<u8>> = OnceLock::new();
    ORIGINAL.get_or_init(|| {
        let dir = folder();
        runtime().block_on(async {
            let store = Store::open(dir.path()).expect("a new store");
            for (index, name) in PIPELINES.iter().enumerate() {
                store
                    .save(name, Arc::new(Checkpoint { number: 1, ..Checkpoint::default() }))
                    .await
                    .expect("it is stored");
                store.save(name, Arc::new(checkpoint(index as u64))).await.expect("it is stored");
            }
        });
        // The store's thread lets go of the file once its last sender is gone; only then is the file at rest.
        loop {
            match Store::open(dir.path()) {
                Ok(_) => break,
                Err(error) if error.to_string().contains("already open") => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
        std::fs::read(dir.path().join(FILE)).expect("the file")
    })
}

/// In memory where that can be had: a disk would be what is measured.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().expect("a runtime"))
}
