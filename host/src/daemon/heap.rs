//! What the allocator keeps of the memory that is free.

use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// Blocks of this size and more have pages of their own, which go back to the system as soon as they are free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: i32 = 1 << 20;
/// Less than this is not worth it to be given back.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const WORTH: usize = 4 << 20;
/// How often it is looked at. What is given back and taken again costs a page fault for each 4 KiB: some milliseconds.
const REST: Duration = Duration::from_secs(10);

/// Keep the heap as large as what is in it (invariant 5). By itself glibc puts large blocks into the heap as soon as one was
/// freed, up to 32 MiB each (`mallopt(3)`, `M_MMAP_THRESHOLD`). Batches of megabytes that come and go then leave holes that no
/// other fits into, and a pipeline behind a slow sink grows to twice what it holds. It also makes up to eight heaps for each
/// core, for threads that meet at one; here there is one for each core, since no more threads work at the same time, and one for
/// those that mostly wait. Whoever sets glibc's own variables for this knows better.
///
/// To be called before there are other threads. Other C libraries do without.
pub(crate) fn keep_tight() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let set = |name: &str| std::env::var_os(name).is_some();
        if set("GLIBC_TUNABLES") {
            return;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut parameters = Vec::new();
        if !set("MALLOC_MMAP_THRESHOLD_") && !set("MALLOC_TRIM_THRESHOLD_") {
            parameters.extend([(libc::M_MMAP_THRESHOLD, LARGE), (libc::M_TRIM_THRESHOLD, LARGE)]);
        }
        if !set("MALLOC_ARENA_MAX") {
            parameters.push((libc::M_ARENA_MAX, i32::try_from(cores + 1).unwrap_or(i32::MAX)));
        }
        for (parameter, value) in parameters {
            // SAFETY: glibc takes its own lock; it refuses what it does not like, and then all is as before.
            if unsafe { libc::mallopt(parameter, value) } != 1 {
                tracing::warn!("the allocator can't be told to return large blocks: more memory is used");
            }
        }
    }
}

/// Give the pages back, from time to time, that are free between others which are not: what a burst of work has left. Whoever sets
/// glibc's own variables for this knows better here too.
pub(super) async fn give_back_in_turn() {
    if ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_"].iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    let mut timer = tokio::time::interval(REST);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut given = 0;
    loop {
        timer.tick().await;
        // If it fails there is no harm: it is tried again.
        given = tokio::task::spawn_blocking(move || give_back(given)).await.unwrap_or(given);
    }
}

/// Give back what is free, if it is worth it. So many bytes are free of which nothing can be given back any more; returns how many
/// there are now.
fn give_back(given: usize) -> usize {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes glibc's own locks, and touches nothing that is in use.
        let free = || unsafe { libc::mallinfo2() }.fordblks;
        let before = free();
        if before < given.saturating_add(WORTH) {
            return before.min(given);
        }
        // SAFETY: as above.
        unsafe { libc::malloc_trim(0) };
        free()
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    given
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    // invariant 5
    #[test]
    fn what_is_free_between_others_is_given_back() {
        const ALONE: &str = "ACEQUIA_TEST_HEAP";
        const BLOCK: usize = 64 << 10;
        // In a process of its own, where no other test takes memory meanwhile.
        if std::env::var_os(ALONE).is_none() {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let name = "daemon::heap::tests::what_is_free_between_others_is_given_back";
            let output = command.args([name, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(
                output.status.success() && said.contains("1 passed"),
                "{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
            return;
        }
        let resident = || {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
            statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let mut blocks: Vec<Vec<u8>> = (0..1024).map(|_| vec![1; BLOCK]).collect();
        // Every eighth stays, so that no heap ends in free pages.
        let mut index = 0;
        blocks.retain(|_| {
            index += 1;
            index % 8 == 0
        });
        let before = resident();
        let given = give_back(0);
        let after = resident();
        assert!(before.saturating_sub(after) > 512 * BLOCK, "{before} bytes before, {after} after");
        assert!(blocks.iter().flatten().all(|byte| *byte == 1));
        // The little that this test itself takes and gives does not count.
        assert!(give_back(given) <= given, "there is nothing more to give");
    }
}
