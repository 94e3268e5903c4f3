//! Why a store could not do it, and why it refused.

use pasamanos_proto::model::CommandName;

use super::StoredCommand;

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be asked now.
    #[error("the database cannot be asked")]
    Unavailable(#[source] anyhow::Error),
    /// There is no such row.
    #[error("not found")]
    NotFound,
    /// A fault of ours.
    #[error("the database refused a statement")]
    Broken(#[source] anyhow::Error),
}

/// Why a command was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The writer never took it: nothing is left behind.
    #[error("the writer did not take it")]
    NotTaken,
    /// The writer took it and did not answer in time: it may be stored.
    #[error("it is not known whether it was stored")]
    Unknown,
    /// The transaction failed as a whole: nothing is left behind.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The id is known; here is its command (same body or not: the caller compares).
    #[error("the request id is known")]
    Known(Box<StoredCommand>),
    /// The id stands for a person's settlement of this command.
    #[error("the request id is a settlement's")]
    Reused(CommandName),
    /// The agent's epoch is not the one that the gate saw.
    #[error("the session changed")]
    EpochChanged,
    /// The config is not the one that it was based on.
    #[error("the config changed")]
    EtagMismatch,
    /// Another config command of this feeder has no end.
    #[error("a config command is in flight")]
    ConfigInFlight(CommandName),
    /// A dose of this robot is not settled.
    #[error("a dose is not settled")]
    DoseUnsettled(CommandName),
}

/// Why a session was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The agent was never added.
    #[error("no such agent")]
    UnknownAgent,
    /// The journal's epoch is more than a million above the database's.
    #[error("the journal's epoch is implausible")]
    EpochJump,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a report was not stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The session is not the current one any more.
    #[error("the session is superseded")]
    Fenced,
    /// The database failed: nothing of the batch was stored.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The lease store cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("the lease store cannot be asked")]
pub struct LeaseError(#[source] pub anyhow::Error);
