//! A farm in software: hoppers that empty, oxygen that falls after meals, and PLCs that feed by their
//! own configs, keep their memory through a kill, and take doses by the rules of a real slot.
//!
//! [`machine`], [`rules`], [`view`] and [`water`] are pure; [`shell`] runs them in one thread with files and time.

mod control;
mod driver;
mod machine;
mod memory;
mod power_up;
mod rules;
mod shell;
mod store;
#[cfg(test)]
mod tests;
mod view;
mod water;

pub use driver::SimDriver;

/// One instant of a simulated PLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Now {
    /// The PLC's clock: never steps, counts on after a restart.
    plc_ms: i64,
    /// The local day.
    day: i64,
    /// The second of the local day.
    second: u32,
}

impl Now {
    /// The PLC's clock in seconds, as its status shows it.
    fn plc_s(self) -> u32 {
        u32::try_from(self.plc_ms.div_euclid(1_000)).unwrap_or(u32::MAX)
    }

    /// The minute of the local day.
    fn minute(self) -> i32 {
        i32::try_from(self.second / 60).unwrap_or(0)
    }
}
