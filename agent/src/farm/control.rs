//! What running commands of one feeder tell each other. Nothing here outlives the process.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// When a command was accepted, among those of its feeder: its session's epoch, then its number. Numbers
/// alone go back when the server's database is put back; epochs never do.
pub(crate) type Place = (i64, i64);

/// One feeder's.
#[derive(Debug, Default)]
pub(crate) struct Control {
    last_hold: Mutex<Option<Place>>,
    configs: AtomicUsize,
    resuming: AtomicBool,
}

impl Control {
    /// A hold came: what was accepted before it and was not executed never will be.
    pub(crate) fn hold_came(&self, place: Place) {
        let mut last = self.last_hold.lock().unwrap_or_else(PoisonError::into_inner);
        *last = (*last).max(Some(place));
    }

    /// Whether a hold overtook the command of that place.
    pub(crate) fn overtaken(&self, place: Place) -> bool {
        *self.last_hold.lock().unwrap_or_else(PoisonError::into_inner) > Some(place)
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
