//! What a command does, and the hash that ties its outcome to its body.

use std::fmt;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::{FeederConfig, FeederId, FieldSet, Invalid, ranges};
use crate::pb;

/// What a command does to one feeder.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Set the config.
    UpdateConfig {
        /// What it was based on: the PLC must still run it. Raw values at the farm stay raw here.
        base: pb::FeederConfig,
        /// What it shall run.
        new: FeederConfig,
        /// The fields that change.
        fields: FieldSet,
    },
    /// Dose once.
    FeedNow {
        /// How much, mg, within [`ranges::PORTION_MG`].
        portion_mg: i32,
    },
    /// Stop schedule and doses until a resume.
    Hold,
    /// Lift the operator's hold.
    Resume,
    /// Reset one fault.
    ResetFault {
        /// The fault that was seen; not 0.
        fault_code: u32,
    },
}

/// An action without its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActionKind {
    /// Set the config.
    UpdateConfig,
    /// Dose once.
    FeedNow,
    /// Hold.
    Hold,
    /// Resume.
    Resume,
    /// Reset a fault.
    ResetFault,
}

impl ActionKind {
    /// Its name in the store and in logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpdateConfig => "update_config",
            Self::FeedNow => "feed_now",
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::ResetFault => "reset_fault",
        }
    }
}

impl Action {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ActionKind {
        match self {
            Self::UpdateConfig { .. } => ActionKind::UpdateConfig,
            Self::FeedNow { .. } => ActionKind::FeedNow,
            Self::Hold => ActionKind::Hold,
            Self::Resume => ActionKind::Resume,
            Self::ResetFault { .. } => ActionKind::ResetFault,
        }
    }

    /// The hash of feeder and action: the outcome must bear it.
    #[must_use]
    pub fn body_hash(&self, feeder: &FeederId) -> BodyHash {
        let frame = pb::CommandFrame {
            feeder: feeder.to_string(),
            action: Some(self.into()),
            ..Default::default()
        };
        BodyHash::of(&frame.encode_to_vec())
    }
}

impl From<&Action> for pb::command_frame::Action {
    fn from(a: &Action) -> Self {
        match a {
            Action::UpdateConfig { base, new, fields } => Self::UpdateConfig(pb::ConfigAction {
                base: Some(base.clone()),
                new: Some(new.into()),
                update_mask: Some(fields.to_mask()),
            }),
            Action::FeedNow { portion_mg } => {
                Self::FeedNow(pb::FeedNowAction { portion_mg: *portion_mg })
            }
            Action::Hold => Self::Hold(pb::HoldAction {}),
            Action::Resume => Self::Resume(pb::ResumeAction {}),
            Action::ResetFault { fault_code } => {
                Self::ResetFault(pb::ResetFaultAction { fault_code: *fault_code })
            }
        }
    }
}

impl TryFrom<pb::command_frame::Action> for Action {
    type Error = Invalid;

    fn try_from(m: pb::command_frame::Action) -> Result<Self, Invalid> {
        use pb::command_frame::Action as A;
        Ok(match m {
            A::UpdateConfig(c) => Self::UpdateConfig {
                fields: FieldSet::from_mask(c.update_mask.as_ref())?,
                base: c.base.ok_or_else(|| Invalid::field("base", "is required"))?,
                new: c
                    .new
                    .ok_or_else(|| Invalid::field("new", "is required"))?
                    .try_into()
                    .map_err(|e: Invalid| e.under("new"))?,
            },
            A::FeedNow(f) if ranges::PORTION_MG.contains(&f.portion_mg) => {
                Self::FeedNow { portion_mg: f.portion_mg }
            }
            A::FeedNow(_) => return Err(Invalid::field("portion_mg", "is out of range")),
            A::Hold(_) => Self::Hold,
            A::Resume(_) => Self::Resume,
            A::ResetFault(r) if r.fault_code != 0 => Self::ResetFault { fault_code: r.fault_code },
            A::ResetFault(_) => return Err(Invalid::field("fault_code", "must not be 0")),
        })
    }
}

/// SHA-256 of a command's body.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BodyHash([u8; 32]);

impl BodyHash {
    /// Of a body that nobody kept.
    pub const UNKNOWN: Self = Self([0; 32]);

    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<&[u8]> for BodyHash {
    type Error = Invalid;

    fn try_from(bytes: &[u8]) -> Result<Self, Invalid> {
        let hash = bytes.try_into().map_err(|_| Invalid::field("body_hash", "must be 32 bytes"))?;
        Ok(Self(hash))
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
