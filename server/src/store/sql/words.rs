//! The words that rows hold for the domain's enums, and hashes in text.

use std::fmt::Write as _;

use pasamanos_proto::model::{Basis, CommandState, Verdict};
use pasamanos_proto::pb::ConfigAuthor;

/// The word of a value, and back.
pub trait Word: Sized + Copy + 'static {
    /// Every value with its word.
    const WORDS: &'static [(Self, &'static str)];

    /// Its word; empty for what is never stored.
    fn word(self) -> &'static str
    where
        Self: PartialEq,
    {
        Self::WORDS.iter().find(|(v, _)| *v == self).map_or("", |(_, w)| w)
    }

    /// The value of a word.
    fn of(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, w)| *w == word).map(|(v, _)| *v)
    }
}

impl Word for CommandState {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Accepted, "ACCEPTED"),
        (Self::Applied, "APPLIED"),
        (Self::Partial, "PARTIAL"),
        (Self::Rejected, "REJECTED"),
        (Self::Expired, "EXPIRED"),
        (Self::Uncertain, "UNCERTAIN"),
    ];
}

impl Word for Basis {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Weighed, "WEIGHED"),
        (Self::Counted, "COUNTED"),
        (Self::Timed, "TIMED"),
        (Self::Assumed, "ASSUMED"),
    ];
}

impl Word for Verdict {
    const WORDS: &'static [(Self, &'static str)] = &[(Self::Fed, "FED"), (Self::NotFed, "NOT_FED")];
}

impl Word for ConfigAuthor {
    const WORDS: &'static [(Self, &'static str)] = &[
        (Self::Command, "COMMAND"),
        (Self::Farm, "FARM"),
        (Self::Calibration, "CALIBRATION"),
        (Self::PlcMemoryLost, "PLC_MEMORY_LOST"),
    ];
}

/// Two lower-case digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The 32 bytes of 64 digits.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    let digits = text.as_bytes();
    if digits.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
