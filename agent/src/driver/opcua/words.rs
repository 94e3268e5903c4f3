//! The checked blocks of the block profile: words of 32 bits, the last one the CRC-32 of those before,
//! each as four bytes little-endian. Pure.

use pasamanos_proto::model::{FeederConfig, Mode, ObservedConfig};
use pasamanos_proto::pb;
use prost_types::Duration;

use crate::driver::{
    ConfigReading, DriverError, Slot, SlotBlock, SlotOp, SlotResult, SlotState, Stamps, slot_reason,
};

pub(super) const COMMAND_WORDS: usize = 8;
pub(super) const STATUS_WORDS: usize = 16;
pub(super) const HISTORY_WORDS: usize = 32;
pub(super) const CONFIG_WORDS: usize = 24;
const WINDOWS: usize = 6;
/// No limit.
const NONE: u32 = u32::MAX;

/// CRC-32 (IEEE) of the words.
pub(super) fn checksum(words: &[u32]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for word in words {
        hasher.update(&word.to_le_bytes());
    }
    hasher.finalize()
}

fn sealed(mut words: Vec<u32>) -> Vec<u32> {
    words.push(checksum(&words));
    words
}

fn open<'a>(what: &str, words: &'a [u32], length: usize) -> Result<&'a [u32], DriverError> {
    if words.len() != length {
        let message = format!("{what} has {} words, not {length}", words.len());
        return Err(DriverError::BadData(message));
    }
    match words.split_last() {
        Some((seal, rest)) if *seal == checksum(rest) => Ok(rest),
        _ => Err(DriverError::BadData(format!("{what} does not match its checksum"))),
    }
}

/// The words of `Cmd`.
pub(super) fn command(block: &SlotBlock) -> Vec<u32> {
    let op = match block.op {
        SlotOp::Dose => 1,
        SlotOp::Nop | SlotOp::None => 2,
    };
    sealed(vec![
        block.epoch,
        block.sequence,
        op,
        block.amount_mg,
        block.token,
        block.rate_mg_per_s,
        block.expires_at_s,
    ])
}

/// What `Sts` says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Status {
    pub slot: Slot,
    pub total_mg: u32,
    pub plc_time_s: u32,
    pub heartbeat: u32,
    pub local: bool,
    pub running: bool,
    pub held: bool,
    pub hopper_mg: u32,
    /// The active fault; 0 for none.
    pub fault: u32,
}

/// What `Sts` says beyond that it lives: without clock, heartbeat and checksum.
pub(super) fn without_life(mut words: Vec<u32>) -> Vec<u32> {
    for moving in [8, 9, STATUS_WORDS - 1] {
        if let Some(word) = words.get_mut(moving) {
            *word = 0;
        }
    }
    words
}

/// Reads `Sts`.
pub(super) fn status(words: &[u32]) -> Result<Status, DriverError> {
    let w = open("Sts", words, STATUS_WORDS)?;
    let flag = |bit: u32| w[10] >> bit & 1 == 1;
    let slot = Slot {
        epoch: w[0],
        last_sequence: w[1],
        last_op: match w[2] {
            0 => SlotOp::None,
            2 => SlotOp::Nop,
            // An op that the PLC did not know was rejected; it was no fence.
            _ => SlotOp::Dose,
        },
        last_token: w[3],
        state: state(w[4])?,
        reason: reason(w[5]),
        dispensed_mg: Some(w[6]),
    };
    Ok(Status {
        slot,
        total_mg: w[7],
        plc_time_s: w[8],
        heartbeat: w[9],
        local: flag(4),
        running: flag(5),
        held: flag(7),
        hopper_mg: w[11],
        fault: if flag(6) { w[14] } else { 0 },
    })
}

fn state(word: u32) -> Result<SlotState, DriverError> {
    Ok(match word {
        0 => SlotState::Idle,
        1 => SlotState::Started,
        2 => SlotState::Done,
        3 => SlotState::Aborted,
        4 => SlotState::Rejected,
        5 => SlotState::Expired,
        other => return Err(DriverError::BadData(format!("Sts has the unknown state {other}"))),
    })
}

/// The PLC's reason as ours.
fn reason(word: u32) -> u32 {
    match word {
        1 => slot_reason::HELD,
        2 => slot_reason::INTERLOCK,
        3 => slot_reason::FAULT,
        4 => slot_reason::JAM,
        5 => slot_reason::LOCAL,
        6 => slot_reason::HOPPER_EMPTY,
        7 => slot_reason::DAILY_CAP,
        8 | 9 => slot_reason::RANGE,
        10 => slot_reason::OFF,
        11 => slot_reason::BUSY,
        13 => slot_reason::POWER_LOST,
        // 12 says again that it expired; later ones are of a newer PLC.
        _ => 0,
    }
}

/// Reads `Hist`, newest first on the wire, oldest first here. It has no checksum: an entry that makes
/// no sense makes the whole unreadable.
pub(super) fn history(words: &[u32]) -> Result<Vec<SlotResult>, DriverError> {
    if words.len() != HISTORY_WORDS {
        return Err(DriverError::BadData(format!("Hist has {} words", words.len())));
    }
    let mut out = Vec::new();
    for entry in words.chunks_exact(4).rev().filter(|entry| entry[2] != 0) {
        let (op, state) = match entry[2] {
            6 => (SlotOp::Nop, SlotState::Done),
            other => (SlotOp::Dose, state(other)?),
        };
        let (sequence, token, dispensed_mg) = (entry[0], entry[1], entry[3]);
        out.push(SlotResult { sequence, op, token, state, dispensed_mg });
    }
    Ok(out)
}

/// Reads `CfgSts`. What someone at the farm set out of range comes back raw.
pub(super) fn config(words: &[u32]) -> Result<ConfigReading, DriverError> {
    let w = open("CfgSts", words, CONFIG_WORDS)?;
    let mode = match w[3] {
        0 => pb::FeederMode::Off,
        1 => pb::FeederMode::Automatic,
        2 => pb::FeederMode::Manual,
        _ => pb::FeederMode::Unspecified,
    };
    let number = |word: u32| i32::try_from(word).unwrap_or(i32::MAX);
    // Limits below zero are two's complement.
    let limit = |word: u32| (word != NONE).then_some(word.cast_signed());
    let windows = w[10..22]
        .chunks_exact(2)
        .take(w[9] as usize)
        .map(|pair| pb::FeedWindow { start_minute: number(pair[0]), end_minute: number(pair[1]) });
    let locks = pb::Interlocks {
        min_dissolved_oxygen_ug_per_l: limit(w[7]),
        min_oxygen_saturation_permille: None,
        max_water_temperature_millicelsius: limit(w[8]),
    };
    let raw = pb::FeederConfig {
        mode: mode.into(),
        portion_mg: Some(number(w[4])),
        interval: Some(Duration { seconds: w[5].into(), nanos: 0 }),
        windows: windows.collect(),
        daily_cap_mg: (w[6] != NONE).then_some(number(w[6])),
        interlocks: (locks != pb::Interlocks::default()).then_some(locks),
    };
    let config = ObservedConfig::from(raw);
    Ok(ConfigReading { config, revision: Some(w[2]), plc_epoch: Some(w[0]), stamps: Stamps::new() })
}

/// The words of `Cfg`: this config in place of the one with this epoch and revision.
pub(super) fn config_request(
    epoch: u32,
    base_revision: u32,
    c: &FeederConfig,
) -> Result<Vec<u32>, DriverError> {
    let refused = |what: &str| DriverError::Refused(format!("the PLC's config block {what}"));
    if c.interlocks.min_oxygen_saturation_permille.is_some() {
        return Err(refused("has no place for an oxygen saturation"));
    }
    let portion = c.portion_mg.and_then(|mg| u32::try_from(mg).ok());
    let limit = |value: Option<i32>| value.map_or(NONE, i32::cast_unsigned);
    let mut words = vec![
        epoch,
        base_revision,
        base_revision.wrapping_add(1),
        match c.mode {
            Mode::Off => 0,
            Mode::Automatic => 1,
            Mode::Manual => 2,
        },
        portion.ok_or_else(|| refused("needs a portion"))?,
        c.interval_s.ok_or_else(|| refused("needs an interval"))?,
        limit(c.daily_cap_mg),
        limit(c.interlocks.min_dissolved_oxygen_ug_per_l),
        limit(c.interlocks.max_water_temperature_millicelsius),
        u32::try_from(c.windows.len()).unwrap_or(NONE),
    ];
    if c.windows.len() > WINDOWS {
        return Err(refused("holds at most 6 windows"));
    }
    words.extend(c.windows.iter().flat_map(|w| [u32::from(w.start_minute), w.end_minute.into()]));
    words.resize(CONFIG_WORDS - 1, 0);
    Ok(sealed(words))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use pasamanos_proto::model::{FeedWindow, Interlocks};

    use super::*;

    fn some_config() -> FeederConfig {
        FeederConfig {
            mode: Mode::Manual,
            portion_mg: Some(800),
            interval_s: Some(600),
            windows: vec![
                FeedWindow { start_minute: 360, end_minute: 1_200 },
                FeedWindow { start_minute: 1_300, end_minute: 10 },
            ],
            daily_cap_mg: None,
            interlocks: Interlocks {
                min_dissolved_oxygen_ug_per_l: Some(4_000),
                min_oxygen_saturation_permille: None,
                max_water_temperature_millicelsius: Some(-500),
            },
        }
    }

    #[test]
    fn the_checksum_is_that_of_zlib() {
        // zlib.crc32(struct.pack("<3I", 1, 2, 3))
        assert_eq!(checksum(&[1, 2, 3]), 0xB0E0_2293);
    }

    #[test]
    fn a_config_comes_back_as_it_was_sent() {
        let words = config_request(9, 41, &some_config()).unwrap();
        let read = config(&words).unwrap();
        assert_eq!(read.config, ObservedConfig::Valid(some_config()));
        assert_eq!((read.plc_epoch, read.revision), (Some(9), Some(42)));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_seen() {
        let words = config_request(9, 41, &some_config()).unwrap();
        for bit in 0..CONFIG_WORDS * 32 {
            let mut torn = words.clone();
            torn[bit / 32] ^= 1 << (bit % 32);
            assert!(config(&torn).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_raw_config_of_the_farm_is_raw() {
        let mut words = config_request(9, 41, &some_config()).unwrap();
        words[4] = 4_000_000_000;
        words.pop();
        let read = config(&sealed(words)).unwrap();
        assert_eq!(read.config.valid(), None);
    }

    #[test]
    fn a_fence_in_the_history_is_no_dose() {
        let mut words = vec![0; HISTORY_WORDS];
        words[..8].copy_from_slice(&[8, 77, 6, 0, 7, 77, 2, 1_500]);
        let past = history(&words).unwrap();
        assert_eq!((past[0].sequence, past[0].op, past[0].dispensed_mg), (7, SlotOp::Dose, 1_500));
        assert_eq!((past[1].sequence, past[1].op), (8, SlotOp::Nop));
    }

    #[test]
    fn a_block_that_says_nonsense_is_bad_data() {
        let mut words = vec![0; STATUS_WORDS - 1];
        words[4] = 99;
        assert!(matches!(status(&sealed(words)), Err(DriverError::BadData(_))));
        assert!(matches!(status(&[]), Err(DriverError::BadData(_))));
        assert!(matches!(status(&[0; STATUS_WORDS]), Err(DriverError::BadData(_))));
    }
}
