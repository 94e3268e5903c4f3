//! The only place that builds a `tonic::Status`: kind to code, reason and metadata to `ErrorInfo`,
//! and nothing internal to anybody.

use std::collections::HashMap;

use pasamanos_proto::ERROR_DOMAIN;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::control::SessionError;
use crate::domain::{Error, ErrorKind};

/// The type of the `Feeder` that some refusals carry.
const FEEDER_TYPE: &str = "type.googleapis.com/pasamanos.v1.Feeder";

/// Answers a caller, and logs what is ours to mend, once, here.
#[allow(clippy::needless_pass_by_value, reason = "used as map_err(status)")]
pub fn status(e: Error) -> Status {
    let incident = (e.kind == ErrorKind::Internal).then(|| uuid::Uuid::new_v4().to_string());
    match (&incident, e.cause()) {
        (Some(id), cause) => tracing::error!(incident = id, cause = ?cause, "internal error"),
        (None, Some(cause)) => {
            tracing::warn!(reason = e.reason.name(), cause = format!("{cause:#}"), "refused");
        }
        (None, None) => tracing::debug!(reason = e.reason.name(), "refused"),
    }
    metrics::counter!("pasamanos_refusals_total", "reason" => e.reason.name()).increment(1);
    let mut metadata: HashMap<String, String> =
        e.metadata.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    metadata.extend(incident.map(|id| ("incident".to_owned(), id)));

    let mut details = ErrorDetails::new();
    details.set_error_info(e.reason.name(), ERROR_DOMAIN, metadata);
    for v in &e.violations {
        details.add_bad_request_violation(&v.field, &v.description);
    }
    if let Some(after) = e.retry_after {
        details.set_retry_info(Some(after));
    }
    let status = Status::with_error_details(code(e.kind), e.message, details);
    match e.feeder {
        Some(feeder) => attach(&status, FEEDER_TYPE, feeder.encode_to_vec()),
        None => status,
    }
}

fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::DeadlineExceeded => Code::DeadlineExceeded,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Internal => Code::Internal,
    }
}

/// Adds a message of our own to the details: tonic-types knows only Google's.
fn attach(status: &Status, type_url: &str, value: Vec<u8>) -> Status {
    let Ok(mut rich) = tonic_types::pb::Status::decode(status.details()) else {
        return status.clone();
    };
    rich.details.push(prost_types::Any { type_url: type_url.into(), value });
    Status::with_details(status.code(), status.message(), rich.encode_to_vec().into())
}

/// Ends an agent's stream: the code says what the agent should do, the reason why.
#[allow(clippy::needless_pass_by_value, reason = "consumed like every error")]
pub fn session_status(e: SessionError) -> Status {
    use pasamanos_proto::model::Reason;
    let text = e.to_string();
    match e {
        SessionError::NoHello => Status::deadline_exceeded(text),
        SessionError::Protocol(invalid) => status(invalid.into()),
        SessionError::Superseded => {
            status(Error::new(ErrorKind::Aborted, Reason::SessionSuperseded, text))
        }
        SessionError::SlowReader => {
            status(Error::new(ErrorKind::ResourceExhausted, Reason::Overloaded, text))
        }
        SessionError::Panicked => panicked(),
        SessionError::Unavailable => status(Error::unavailable(Reason::DatabaseUnreachable, text)),
    }
}

/// A handler panicked: the caller learns no more than that.
pub fn panicked() -> Status {
    status(Error::internal(anyhow::anyhow!("a handler panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pasamanos_proto::model::Reason;
    use pasamanos_proto::pb;

    #[test]
    fn a_refusal_carries_reason_metadata_and_the_feeder() {
        let e = Error::new(ErrorKind::Aborted, Reason::EtagMismatch, "changed")
            .with("etag", "v2")
            .with_feeder(pb::Feeder { etag: "v2".into(), ..Default::default() });
        let status = status(e);
        assert_eq!(status.code(), Code::Aborted);
        let info = status.get_details_error_info();
        let info = info.map(|i| (i.reason, i.domain, i.metadata.get("etag").cloned()));
        assert_eq!(info, Some(("ETAG_MISMATCH".into(), ERROR_DOMAIN.into(), Some("v2".into()))));
        let rich = tonic_types::pb::Status::decode(status.details()).ok();
        let last = rich.and_then(|r| r.details.into_iter().last());
        assert_eq!(last.map(|d| d.type_url), Some(FEEDER_TYPE.into()));
    }

    #[test]
    fn nothing_internal_reaches_a_client() {
        let status = status(Error::internal(anyhow::anyhow!("password=hunter2")));
        assert_eq!(status.code(), Code::Internal);
        assert!(!format!("{status:?}").contains("hunter2"));
    }
}
