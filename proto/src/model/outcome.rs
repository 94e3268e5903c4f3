//! What becomes of a command, as agent and server speak of it.

use std::collections::BTreeMap;

use super::{BodyHash, CommandName, Invalid, ObservedConfig};
use crate::pb;

pub use crate::pb::Reason;

/// Where a command is. Terminal states never change, except `Uncertain`, once, by evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommandState {
    /// Stored; may have been sent.
    Accepted,
    /// Handed to the agent's stream. Progress only, never stored.
    Sent,
    /// The agent began. Progress only, never stored.
    Executing,
    /// Written, read back from the PLC, journaled.
    Applied,
    /// The PLC ended the dose short; the amount is measured.
    Partial,
    /// Refused by agent or PLC; nothing changed.
    Rejected,
    /// Proven not executed, and never will be.
    Expired,
    /// It may have run and nobody can tell yet.
    Uncertain,
}

impl CommandState {
    /// Whether this is an end. `Uncertain` is one for whoever waits.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Self::Accepted | Self::Sent | Self::Executing)
    }
}

impl From<CommandState> for pb::CommandState {
    fn from(s: CommandState) -> Self {
        match s {
            CommandState::Accepted => Self::Accepted,
            CommandState::Sent => Self::Sent,
            CommandState::Executing => Self::Executing,
            CommandState::Applied => Self::Applied,
            CommandState::Partial => Self::Partial,
            CommandState::Rejected => Self::Rejected,
            CommandState::Expired => Self::Expired,
            CommandState::Uncertain => Self::Uncertain,
        }
    }
}

impl TryFrom<pb::CommandState> for CommandState {
    type Error = Invalid;

    fn try_from(s: pb::CommandState) -> Result<Self, Invalid> {
        Ok(match s {
            pb::CommandState::Unspecified => {
                return Err(Invalid::field("state", "is required"));
            }
            pb::CommandState::Accepted => Self::Accepted,
            pb::CommandState::Sent => Self::Sent,
            pb::CommandState::Executing => Self::Executing,
            pb::CommandState::Applied => Self::Applied,
            pb::CommandState::Partial => Self::Partial,
            pb::CommandState::Rejected => Self::Rejected,
            pb::CommandState::Expired => Self::Expired,
            pb::CommandState::Uncertain => Self::Uncertain,
        })
    }
}

/// How a dispensed amount is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// A scale.
    Weighed,
    /// Revolutions, pulses, or the PLC's totaliser.
    Counted,
    /// Motor time × calibration.
    Timed,
    /// Counted as fed because nobody can tell.
    Assumed,
}

impl From<Basis> for pb::AmountBasis {
    fn from(b: Basis) -> Self {
        match b {
            Basis::Weighed => Self::Weighed,
            Basis::Counted => Self::Counted,
            Basis::Timed => Self::Timed,
            Basis::Assumed => Self::Assumed,
        }
    }
}

impl Basis {
    /// Reads a basis; `None` for none.
    #[must_use]
    pub fn from_pb(b: pb::AmountBasis) -> Option<Self> {
        match b {
            pb::AmountBasis::Unspecified => None,
            pb::AmountBasis::Weighed => Some(Self::Weighed),
            pb::AmountBasis::Counted => Some(Self::Counted),
            pb::AmountBasis::Timed => Some(Self::Timed),
            pb::AmountBasis::Assumed => Some(Self::Assumed),
        }
    }

    /// Whether a PLC measured it: a `PARTIAL` needs that.
    #[must_use]
    pub fn is_measured(self) -> bool {
        matches!(self, Self::Weighed | Self::Counted)
    }
}

/// What a person said about a command in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The feed fell.
    Fed,
    /// It did not.
    NotFed,
}

impl Reason {
    /// The name as `ErrorInfo.reason` and `Command.reason` carry it; empty for none.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "",
            other => other.as_str_name().trim_start_matches("REASON_"),
        }
    }

    /// Reads such a name; `None` if this build does not know it. Empty is `Unspecified`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if name.is_empty() {
            return Some(Self::Unspecified);
        }
        Self::from_str_name(&format!("REASON_{name}"))
    }
}

/// What the agent says of one command: progress, or its journaled outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandReport {
    /// Which.
    pub command: CommandName,
    /// Where it is: `Accepted` (received), `Executing` (an open intent) or terminal.
    pub state: CommandState,
    /// The body that the agent ran.
    pub body_hash: BodyHash,
    /// Why.
    pub reason: Reason,
    /// Its metadata.
    pub metadata: BTreeMap<String, String>,
    /// For an operator, English.
    pub detail: String,
    /// What fell, mg, and how that is known.
    pub dispensed: Option<(i32, Basis)>,
    /// The feeder's config as last read back.
    pub config: Option<ObservedConfig>,
    /// Whether that is what the PLC came up with after it lost its memory: nobody set it.
    pub memory_lost: bool,
    /// The session epoch in which the agent journaled it.
    pub journaled_epoch: i64,
}

impl TryFrom<pb::CommandUpdate> for CommandReport {
    type Error = Invalid;

    fn try_from(mut m: pb::CommandUpdate) -> Result<Self, Invalid> {
        let state = CommandState::try_from(m.state())?;
        if state == CommandState::Sent {
            return Err(Invalid::field("state", "SENT is the server's word, not the agent's"));
        }
        // A newer agent's reason must not keep its farm offline: the state is what counts.
        let reason = Reason::from_name(&m.reason).unwrap_or_else(|| {
            m.detail = format!("{}: {}", m.reason.chars().take(64).collect::<String>(), m.detail);
            Reason::Unspecified
        });
        let dispensed = match (m.dispensed_mg, Basis::from_pb(m.basis())) {
            (Some(mg), Some(basis)) if mg >= 0 => Some((mg, basis)),
            (None, _) => None,
            _ => {
                return Err(Invalid::field(
                    "dispensed_mg",
                    "must not be negative and needs a basis",
                ));
            }
        };
        if state == CommandState::Partial && !dispensed.is_some_and(|(_, b)| b.is_measured()) {
            return Err(Invalid::field(
                "dispensed_mg",
                "PARTIAL needs an amount that was measured",
            ));
        }
        if m.detail.len() > 2_000 || m.reason_metadata.len() > 16 {
            return Err(Invalid::field("detail", "is too long"));
        }
        Ok(Self {
            command: m.command.parse().map_err(|e: Invalid| e.under("command"))?,
            state,
            body_hash: BodyHash::try_from(&m.body_hash[..])?,
            reason,
            metadata: m.reason_metadata,
            detail: m.detail,
            dispensed,
            config: m.config.map(ObservedConfig::from),
            memory_lost: m.config_memory_lost,
            journaled_epoch: m.journaled_epoch,
        })
    }
}

impl From<CommandReport> for pb::CommandUpdate {
    fn from(r: CommandReport) -> Self {
        Self {
            command: r.command.to_string(),
            state: pb::CommandState::from(r.state).into(),
            body_hash: r.body_hash.as_bytes().to_vec().into(),
            reason: r.reason.name().into(),
            reason_metadata: r.metadata,
            detail: r.detail,
            dispensed_mg: r.dispensed.map(|(mg, _)| mg),
            basis: r.dispensed.map_or(pb::AmountBasis::Unspecified, |(_, b)| b.into()).into(),
            config: r.config.map(Into::into),
            config_memory_lost: r.memory_lost,
            journaled_epoch: r.journaled_epoch,
        }
    }
}
