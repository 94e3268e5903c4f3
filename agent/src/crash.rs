//! Crash points: places at which a test kills the process. In a debug build `CRASH_AT=name:nth` makes
//! the nth passage of a point a SIGKILL; in a release build they are nothing.

/// Every point, in the order in which a dose passes them, with what must hold after a restart.
#[cfg(test)]
pub(crate) const POINTS: &[(&str, &str)] = &[
    ("agent.command.received", "not journaled: the next hello does not list it, it is EXPIRED"),
    ("agent.epoch.journaled", "no frame was sent under the epoch: no lease"),
    ("agent.dose.intent-journaled", "nothing was written: fenced, EXPIRED"),
    ("agent.dose.submitted", "read-back decides: executed once or never"),
    ("agent.dose.consumed", "the slot tells: reported once"),
    ("agent.config.intent-journaled", "nothing was written: read-back decides"),
    ("agent.config.written", "read-back decides"),
    ("agent.hold.journaled", "the hold is written at the next start"),
    ("agent.outcome.journaled", "reported in the next hello"),
    ("agent.outcome.reported", "reported again, absorbed by the server"),
    ("agent.ack.received", "reported again, absorbed by the server"),
    ("agent.records.acked", "sent again, absorbed by the server"),
];

/// Marks a crash point; nothing in a release build.
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::crash::reached($name);
    };
}
pub(crate) use crash_point;

/// Dies here if `CRASH_AT` says so.
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
        #[cfg(target_os = "linux")]
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;
    use std::path::Path;

    fn used(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                used(&path, found);
            } else if path.file_name().is_some_and(|f| f != "crash.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                for rest in text.split("crash_point!(\"").skip(1) {
                    found.insert(rest.split('"').next().unwrap().to_owned());
                }
            }
        }
    }

    #[test]
    fn every_point_is_listed_and_passed() {
        let mut found = BTreeSet::new();
        used(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let listed: BTreeSet<_> =
            super::POINTS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(found, listed);
    }
}
