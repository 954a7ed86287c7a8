//! Damage to the file, anywhere: what was stored is read, or an error says what is wrong; never anything else.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use acequia_connector_api::Position;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::layout::{self, Entry};
use super::*;

/// A checkpoint whose snapshot does not fit into a page, so that the tree has all kinds of pages.
fn checkpoint(number: u64) -> Checkpoint {
    let snapshot: Vec<u8> = (0..6000_u64).map(|byte| ((byte * 31 + number * 7) % 251) as u8).collect();
    Checkpoint {
        number,
        source_type: "rate".to_owned(),
        position: Position::single(number.into()),
        snapshots: [("sum".to_owned(), snapshot)].into(),
        ..Checkpoint::default()
    }
}

const PIPELINES: [&str; 40] = {
    let mut names = [""; 40];
    let all = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN";
    let mut at = 0;
    while at < 40 {
        names[at] = all.split_at(at).1.split_at(1).0;
        at += 1;
    }
    names
};

fn entries(number: u64, checkpoint: &Checkpoint) -> impl Iterator<Item = Entry<'_>> {
    let names = PIPELINES.iter().enumerate();
    names.map(move |(at, name)| Entry { pipeline: name, checkpoint, beside: (at as u64 + number).is_multiple_of(5) })
}

/// Some commits of all pipelines, the last of number 4; and, unless it is closed in good order, the file as it lies there
/// while the daemon runs.
fn filled(dir: &Path, closed: bool) -> Vec<u8> {
    drop(Store::open(dir).unwrap());
    let path = dir.join(store::FILE);
    let database = loop {
        match sound::open(&path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => std::thread::yield_now(),
            database => break database.unwrap(),
        }
    };
    layout::adopt(&database).unwrap();
    for number in 1..=4 {
        layout::save(&database, entries(number, &checkpoint(number)), &mut Default::default()).unwrap();
    }
    let running = std::fs::read(&path).unwrap();
    drop(database);
    if closed { std::fs::read(&path).unwrap() } else { running }
}

/// Everything in a file must be what was stored, or it must say that it is damaged; which of both.
fn judge(dir: &Path, what: &str) -> bool {
    match look(dir) {
        Ok(look) => {
            let names: Vec<&str> = look.entries.iter().map(|entry| entry.pipeline.as_str()).collect();
            let mut wanted = PIPELINES.to_vec();
            wanted.sort_unstable();
            assert_eq!(names, wanted, "{what}");
            for entry in &look.entries {
                assert_eq!(entry.last.checkpoint.as_ref(), Ok(&checkpoint(4)), "{what}: {}", entry.pipeline);
            }
            let kept: Vec<_> = look.entries.iter().filter_map(|entry| entry.previous.as_ref()).collect();
            assert_eq!(kept.len(), 24, "{what}: in each round but the first, every fifth");
            for previous in kept {
                assert!(previous.checkpoint.as_ref().is_ok_and(|it| it.number < 4), "{what}");
            }
            true
        }
        Err(StateError::Corrupt { file, .. }) => {
            assert_eq!(file, dir.join(store::FILE));
            false
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

/// Each bit of the header and a bit in every few bytes of everything else.
fn flip_everywhere(closed: bool) {
    let dir = tempfile::tempdir().unwrap();
    let whole = filled(dir.path(), closed);
    let path = dir.path().join(store::FILE);
    std::fs::write(&path, &whole).unwrap();
    assert!(judge(dir.path(), "nothing is damaged"));
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let used = whole.chunks(4096).rposition(|page| page.iter().any(|byte| *byte != 0)).unwrap() * 4096 + 4096;
    let header = (0..320).flat_map(|at| (0..8).map(move |bit| (at, 1_u8 << bit)));
    let pages = (320..used).step_by(1021).map(|at| (at, 1_u8 << (at % 8)));
    let (mut unharmed, mut found) = (0, 0);
    for (at, flip) in header.chain(pages) {
        file.write_all_at(&[whole[at] ^ flip], at as u64).unwrap();
        let ok = judge(dir.path(), &format!("byte {at} of {}, bits {flip:#x}", whole.len()));
        *(if ok { &mut unharmed } else { &mut found }) += 1;
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
    println!("closed: {closed}; {used} of {} bytes in use; {found} found, {unharmed} without harm", whole.len());
    assert!(found > 100 && unharmed > 100, "{found} found, {unharmed} without harm");
}

// invariant 2
#[test]
fn a_flipped_bit_of_a_file_in_use_is_found_or_harmless() {
    flip_everywhere(false);
}

// invariant 2
#[test]
fn a_flipped_bit_of_a_closed_file_is_found_or_harmless() {
    flip_everywhere(true);
}

/// Each page of the file lost: zeros, or what was there before it was last written (which is someone else's page).
// invariant 2
#[test]
fn a_lost_page_is_found_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let whole = filled(dir.path(), false);
    let path = dir.path().join(store::FILE);
    std::fs::write(&path, &whole).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let used = whole.chunks(4096).rposition(|page| page.iter().any(|byte| *byte != 0)).unwrap() + 1;
    let mut found = 0;
    for page in 1..used {
        let at = page * 4096;
        let other = (page + 7) % used * 4096;
        let other = &whole[other..other + 4096];
        for lost in [&[0; 4096][..], other] {
            file.write_all_at(lost, at as u64).unwrap();
            found += usize::from(!judge(dir.path(), &format!("page {page} is lost")));
        }
        // Torn: only its first half was written.
        file.write_all_at(&whole[at..at + 2048], at as u64).unwrap();
        judge(dir.path(), &format!("page {page} is torn"));
        file.write_all_at(&whole[at..at + 4096], at as u64).unwrap();
    }
    println!("{used} pages in use; {found} losses found");
    assert!(found > 20);
}

// invariant 2
#[test]
fn a_file_that_is_cut_short_or_longer_is_found() {
    let dir = tempfile::tempdir().unwrap();
    for closed in [false, true] {
        let whole = filled(dir.path(), closed);
        let path = dir.path().join(store::FILE);
        let mut lengths: Vec<usize> = (0..whole.len()).step_by(4096 * 7).collect();
        lengths.extend([1, 9, 64, 319, 320, 321, 511, 4095, 4097, whole.len() - 1, whole.len() - 4096]);
        for length in lengths {
            std::fs::write(&path, &whole[..length]).unwrap();
            judge(dir.path(), &format!("cut to {length} of {} bytes", whole.len()));
        }
        std::fs::write(&path, b"").unwrap();
        assert!(!judge(dir.path(), "empty"), "a file without content is not a store without checkpoints");
        for more in [1, 4096, 1 << 20] {
            std::fs::write(&path, [&whole[..], &vec![0; more]].concat()).unwrap();
            judge(dir.path(), &format!("{more} bytes too long"));
        }
        std::fs::remove_file(&path).unwrap();
    }
}

/// The thread of a store that was dropped lets go of the file soon; until then it may write to it.
async fn wait_until_closed(dir: &Path) {
    let file = OpenOptions::new().read(true).open(dir.join(store::FILE)).unwrap();
    while file.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
}

async fn load_all(store: &Store) -> Result<(), StateError> {
    for pipeline in PIPELINES {
        let found = store.load(pipeline).await?;
        assert_eq!(found, Some(checkpoint(4)), "{pipeline}");
    }
    Ok(())
}

/// As the daemon meets it: it refuses the file and leaves it as it is; or all is there.
// invariant 2
#[tokio::test]
async fn the_daemon_refuses_what_is_damaged_and_does_not_touch_it() {
    let dir = tempfile::tempdir().unwrap();
    let whole = filled(dir.path(), false);
    let path = dir.path().join(store::FILE);
    let mut random = StdRng::seed_from_u64(1);
    let mut refused = 0;
    for round in 0..60 {
        let mut damaged = whole.clone();
        let place = if round < 30 { random.random_range(0..320) } else { random.random_range(4096..whole.len()) };
        damaged[place] ^= 1 << random.random_range(0..8);
        if round == 0 {
            damaged.clear();
        }
        std::fs::write(&path, &damaged).unwrap();
        match Store::open(dir.path()) {
            Ok(store) => {
                load_all(&store).await.unwrap();
                drop(store);
                wait_until_closed(dir.path()).await;
            }
            Err(error) => {
                refused += 1;
                let text = error.to_string();
                assert!(matches!(error, StateError::Corrupt { .. }) && text.contains("acequia.redb"), "{text}");
                assert_eq!(std::fs::read(&path).unwrap(), damaged, "it was changed: {text}");
            }
        }
    }
    println!("{refused} of 60 refused");
    assert!(refused > 10);
}

/// The disk forgets while the daemon runs: pages are not verified again, but what is read is.
// invariants 2 and 6
#[tokio::test]
async fn what_is_damaged_while_it_is_open_is_found_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let whole = filled(dir.path(), true);
    let path = dir.path().join(store::FILE);
    let mut random = StdRng::seed_from_u64(2);
    let (mut right, mut wrong) = (0, 0);
    for _ in 0..25 {
        std::fs::write(&path, &whole).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        for _ in 0..20 {
            file.write_all_at(&[random.random()], random.random_range(4096..whole.len() as u64)).unwrap();
        }
        for pipeline in PIPELINES {
            match store.load(pipeline).await {
                Ok(found) => {
                    assert_eq!(found, Some(checkpoint(4)), "{pipeline}");
                    right += 1;
                }
                Err(StateError::Damaged { .. } | StateError::Corrupt { .. }) => wrong += 1,
                Err(error) => panic!("{error}"),
            }
        }
        // Its thread is there, whatever it says.
        match store.save("another", checkpoint(1).into()).await {
            Ok(()) | Err(StateError::Corrupt { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        drop(store);
        wait_until_closed(dir.path()).await;
    }
    println!("{right} read as they were, {wrong} errors");
    assert!(right > 0 && wrong > 0);
}

// invariant 2
#[tokio::test]
async fn an_entry_that_is_lost_or_hidden_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), true);
    let path: PathBuf = dir.path().join(store::FILE);
    let database = sound::builder().open(&path).unwrap();
    const CHECKPOINTS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("checkpoints");
    let transaction = database.begin_write().unwrap();
    transaction.open_table(CHECKPOINTS).unwrap().remove("c").unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(dir.path()).unwrap_err();
    assert!(matches!(error, StateError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains("it should have 64 entries"), "{error}");
}
