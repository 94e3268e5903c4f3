//! Who asks, and for how long: the parts of a request that are not its message.

use std::time::Duration;

use pasamanos_proto::model::BodyHash;
use prost::Message;
use tonic::metadata::MetadataMap;

use crate::control::Caller;

const DEFAULT_WAIT: Duration = Duration::from_secs(15);
const MAX_WAIT: Duration = Duration::from_mins(1);
/// The answer goes out this long before the caller's deadline.
const MARGIN: Duration = Duration::from_millis(300);

/// The caller of a mutating rpc. `body` is its message without request id and `validate_only`: the
/// same id with another body is another intention.
pub fn caller(metadata: &MetadataMap, rpc: &str, body: &impl Message) -> Caller {
    let mut bytes = rpc.as_bytes().to_vec();
    bytes.extend(body.encode_to_vec());
    Caller {
        // Until there are logins, every caller is the operator of an open port.
        author: "operator".into(),
        wait: wait(metadata),
        request_hash: BodyHash::of(&bytes),
    }
}

fn wait(metadata: &MetadataMap) -> Duration {
    let given = metadata.get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(parse);
    given.map_or(DEFAULT_WAIT, |d| d.min(MAX_WAIT)).saturating_sub(MARGIN)
}

/// `1S`, `500m`: at most 8 digits and a unit. Anything else counts as not given.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n.checked_mul(3_600)?),
        "M" => Duration::from_secs(n.checked_mul(60)?),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(timeout: &str) -> Duration {
        let mut metadata = MetadataMap::new();
        if let Ok(value) = timeout.parse() {
            metadata.insert("grpc-timeout", value);
        }
        wait(&metadata)
    }

    #[test]
    fn the_wait_is_the_callers_deadline_less_a_margin_and_never_endless() {
        assert_eq!(waits("2S"), Duration::from_millis(1_700));
        assert_eq!(waits("500m"), Duration::from_millis(200));
        assert_eq!(waits("99999999H"), MAX_WAIT.saturating_sub(MARGIN));
        for nonsense in ["", "abc", "-1S", "999999999S", "S", "1x"] {
            assert_eq!(waits(nonsense), DEFAULT_WAIT.saturating_sub(MARGIN), "{nonsense:?}");
        }
    }
}
