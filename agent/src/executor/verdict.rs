//! What became of a command, before it is tied to it.

use std::collections::BTreeMap;

use pasamanos_proto::model::{
    Basis, CommandOrder, CommandReport, CommandState, ObservedConfig, Reason,
};

/// An end of a command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Verdict {
    /// Which end.
    pub state: CommandState,
    /// Why.
    pub reason: Reason,
    /// The reason's metadata.
    pub metadata: BTreeMap<String, String>,
    /// For an operator.
    pub detail: String,
    /// What fell.
    pub dispensed: Option<(i32, Basis)>,
    /// The config as last read back.
    pub config: Option<ObservedConfig>,
}

impl Verdict {
    fn new(state: CommandState, reason: Reason) -> Self {
        Self {
            state,
            reason,
            metadata: BTreeMap::new(),
            detail: String::new(),
            dispensed: None,
            config: None,
        }
    }

    /// Written and read back.
    pub(crate) fn applied() -> Self {
        Self::new(CommandState::Applied, Reason::Unspecified)
    }

    /// Ended short; the amount is measured.
    pub(crate) fn partial(reason: Reason) -> Self {
        Self::new(CommandState::Partial, reason)
    }

    /// Refused; nothing changed.
    pub(crate) fn rejected(reason: Reason) -> Self {
        Self::new(CommandState::Rejected, reason)
    }

    /// Not executed, and never will be.
    pub(crate) fn expired() -> Self {
        Self::new(CommandState::Expired, Reason::StartLimit)
    }

    /// It may have run.
    pub(crate) fn uncertain(reason: Reason) -> Self {
        Self::new(CommandState::Uncertain, reason)
    }

    /// Adds to the metadata.
    #[allow(clippy::needless_pass_by_value, reason = "numbers and names, as they come")]
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Says more.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self.detail.truncate(self.detail.floor_char_boundary(500));
        self
    }

    /// With what fell.
    pub(crate) fn dispensed(mut self, mg: u64, basis: Basis) -> Self {
        self.dispensed = Some((i32::try_from(mg).unwrap_or(i32::MAX), basis));
        self
    }

    /// With the config as read back.
    pub(crate) fn config(mut self, config: ObservedConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Of this command.
    pub(crate) fn report(self, order: &CommandOrder, epoch: i64) -> CommandReport {
        CommandReport {
            command: order.command.clone(),
            state: self.state,
            body_hash: order.body_hash,
            reason: self.reason,
            metadata: self.metadata,
            detail: self.detail,
            dispensed: self.dispensed,
            config: self.config,
            memory_lost: false,
            journaled_epoch: epoch,
        }
    }
}
