//! How the allocator treats large blocks.

/// Blocks of this size and more have pages of their own, which go back to the system as soon as they are free.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: i32 = 1 << 20;

/// Keep the heap as large as what is in it (invariant 5). By itself glibc puts large blocks into the heap as soon as one was
/// freed, up to 32 MiB each (`mallopt(3)`, `M_MMAP_THRESHOLD`). Batches of megabytes that come and go then leave holes that no
/// other fits into, and a pipeline behind a slow sink grows to twice what it holds. Whoever sets glibc's own variables for
/// this knows better.
///
/// Other C libraries do without.
pub(super) fn keep_tight() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        let set = |name: &str| std::env::var_os(name).is_some();
        if set("MALLOC_MMAP_THRESHOLD_") || set("MALLOC_TRIM_THRESHOLD_") || set("GLIBC_TUNABLES") {
            return;
        }
        for parameter in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
            // SAFETY: glibc takes its own lock; it refuses what it does not like, and then all is as before.
            if unsafe { libc::mallopt(parameter, LARGE) } != 1 {
                tracing::warn!("the allocator can't be told to return large blocks: more memory is used");
            }
        }
    }
}
