//! Switches by which the tests break the product. In a debug build `CRASH_AT=name:nth` makes the nth
//! passage of a crash point an abort, and `PASAMANOS_PLANTED=name` plants one bug; in a release build
//! neither exists.

mod crash;
mod planted;

pub use crash::{POINTS, reached};
pub use planted::{Bug, PLANTED, is_planted};

/// Marks a crash point; nothing in a release build.
#[macro_export]
macro_rules! crash_point {
    ($name:literal) => {
        #[cfg(debug_assertions)]
        $crate::reached($name);
    };
}

/// Whether this bug is planted; `false` at compile time in a release build.
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        cfg!(debug_assertions) && $crate::is_planted($name)
    };
}
