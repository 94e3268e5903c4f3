//! What running commands of one feeder tell each other. Nothing here outlives the process.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};

/// One feeder's.
#[derive(Debug, Default)]
pub(crate) struct Control {
    hold_number: AtomicI64,
    configs: AtomicUsize,
    resuming: AtomicBool,
}

impl Control {
    /// A hold of that number came: what is before it and was not executed never will be.
    pub(crate) fn hold_came(&self, number: i64) {
        self.hold_number.fetch_max(number, Ordering::SeqCst);
    }

    /// Whether a hold overtook the command of that number.
    pub(crate) fn overtaken(&self, number: i64) -> bool {
        self.hold_number.load(Ordering::SeqCst) > number
    }

    /// A config command entered the executor, or left it with its outcome told.
    pub(crate) fn config_entered(&self, entered: bool) {
        if entered {
            self.configs.fetch_add(1, Ordering::SeqCst);
        } else {
            self.configs.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Whether a config command is in the executor: its outcome carries the config.
    pub(crate) fn config_busy(&self) -> bool {
        self.configs.load(Ordering::SeqCst) > 0
    }

    /// A resume is taking the hold bit away; nobody writes it again meanwhile.
    pub(crate) fn set_resuming(&self, resuming: bool) {
        self.resuming.store(resuming, Ordering::SeqCst);
    }

    /// See [`Self::set_resuming`].
    pub(crate) fn resuming(&self) -> bool {
        self.resuming.load(Ordering::SeqCst)
    }
}
