//! The one error of the control plane. It meets gRPC last, in `grpc::status`; what is internal has
//! no way to a client.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pasamanos_proto::model::{Invalid, Reason, Violation};
use pasamanos_proto::pb;

/// What a caller can do about it, and so the gRPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Send something else.
    InvalidArgument,
    /// There is no such thing.
    NotFound,
    /// The id stands for something else.
    AlreadyExists,
    /// Change the state of the farm first.
    FailedPrecondition,
    /// Read again, then decide again.
    Aborted,
    /// Try the same again.
    Unavailable,
    /// Ask what became of it.
    DeadlineExceeded,
    /// Try the same again, later.
    ResourceExhausted,
    /// Ours to mend.
    Internal,
}

/// An error with an outside (kind, reason, message, metadata) and an inside (cause, for the log).
#[derive(Debug)]
pub struct Error {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// The stable reason.
    pub reason: Reason,
    /// What happened and what to do next, in English. Never internal text.
    pub message: String,
    /// The reason's metadata.
    pub metadata: BTreeMap<&'static str, String>,
    /// Fields and their rules.
    pub violations: Vec<Violation>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The feeder as it is now, for whoever must decide again.
    pub feeder: Option<Box<pb::Feeder>>,
    cause: Option<anyhow::Error>,
}

impl Error {
    /// An error without metadata.
    pub fn new(kind: ErrorKind, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
            feeder: None,
            cause: None,
        }
    }

    /// `FAILED_PRECONDITION`.
    pub fn precondition(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::FailedPrecondition, reason, message)
    }

    /// `UNAVAILABLE`.
    pub fn unavailable(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, reason, message)
    }

    /// `NOT_FOUND` of this name.
    pub fn not_found(name: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, Reason::NotFound, format!("there is no {name}"))
            .with("name", name)
    }

    /// `INTERNAL`; the cause goes to the log only.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        let text = "something went wrong on our side; it was logged";
        Self::new(ErrorKind::Internal, Reason::Internal, text).caused_by(cause)
    }

    /// Adds metadata.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key, value.to_string());
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds the cause, for the log.
    #[must_use]
    pub fn caused_by(mut self, cause: impl Into<anyhow::Error>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds the feeder as it is now.
    #[must_use]
    pub fn with_feeder(mut self, feeder: pb::Feeder) -> Self {
        self.feeder = Some(Box::new(feeder));
        self
    }

    /// The cause, for the log.
    pub fn cause(&self) -> Option<&anyhow::Error> {
        self.cause.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.name(), self.message)?;
        self.cause.as_ref().map_or(Ok(()), |c| write!(f, ": {c:#}"))
    }
}

impl std::error::Error for Error {}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        let mut e = Self::new(ErrorKind::InvalidArgument, invalid.reason(), invalid.to_string());
        e.violations = invalid.violations;
        e
    }
}
