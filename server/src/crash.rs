//! Crash points: places at which a test kills the process. In a debug build `CRASH_AT=name:nth` makes
//! the nth passage of a point an abort; in a release build they are nothing.

/// Marks a crash point; nothing in a release build.
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::crash::reached($name);
    };
}
pub(crate) use crash_point;

/// Dies here if `CRASH_AT` says so: no destructor runs, nothing is flushed.
#[cfg(debug_assertions)]
pub(crate) fn reached(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static AT: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let at = std::env::var("CRASH_AT").ok()?;
        let (name, nth) = at.rsplit_once(':').unwrap_or((&at, "1"));
        Some((name.to_owned(), nth.parse().unwrap_or(1)))
    });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    if let Some((at, nth)) = &*AT
        && at == name
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *nth
    {
        tracing::error!(point = name, "crash point reached");
        std::process::abort();
    }
}
