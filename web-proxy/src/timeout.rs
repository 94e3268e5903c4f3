//! The `grpc-timeout` header: at most eight digits and a unit.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

/// The header's name.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Most digits that the header's number may have.
const MAX_DIGITS: usize = 8;

/// A `grpc-timeout` that is not eight digits and one of `H M S m u n`, or is given twice.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("grpc-timeout is not a number of at most 8 digits and a unit (H, M, S, m, u or n)")]
pub struct Malformed;

/// Reads the header. An unreadable one is an error: it must not come to mean "no limit".
pub fn parse(headers: &HeaderMap) -> Result<Option<Duration>, Malformed> {
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Malformed);
    }

    let text = value.to_str().map_err(|_| Malformed)?;
    let (number, unit) = text.split_at_checked(text.len().wrapping_sub(1)).ok_or(Malformed)?;
    if number.is_empty() || number.len() > MAX_DIGITS || !number.bytes().all(|b| b.is_ascii_digit())
    {
        return Err(Malformed);
    }
    let number: u64 = number.parse().map_err(|_| Malformed)?;
    let duration = match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return Err(Malformed),
    };
    Ok(Some(duration))
}

/// Writes what is left, rounded down in the finest unit that holds it.
pub fn format(left: Duration) -> HeaderValue {
    const LIMIT: u128 = 10_u128.pow(8);
    let (number, unit) = match (left.as_micros(), left.as_millis(), u128::from(left.as_secs())) {
        (micros, _, _) if micros < LIMIT => (micros, 'u'),
        (_, millis, _) if millis < LIMIT => (millis, 'm'),
        (_, _, seconds) if seconds < LIMIT => (seconds, 'S'),
        (_, _, seconds) => ((seconds / 3600).min(LIMIT - 1), 'H'),
    };
    HeaderValue::try_from(format!("{number}{unit}"))
        .unwrap_or_else(|_| HeaderValue::from_static("0u"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<Duration>, Malformed> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, text.parse().unwrap());
        parse(&headers)
    }

    #[test]
    fn every_unit_is_read() {
        for (text, duration) in [
            ("2H", Duration::from_hours(2)),
            ("2M", Duration::from_mins(2)),
            ("2S", Duration::from_secs(2)),
            ("2m", Duration::from_millis(2)),
            ("2u", Duration::from_micros(2)),
            ("2n", Duration::from_nanos(2)),
            ("99999999H", Duration::from_hours(99_999_999)),
        ] {
            assert_eq!(parsed(text), Ok(Some(duration)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_never_no_limit() {
        for text in ["", "S", "5", "-1S", "+1S", "abc", "123456789S", "1s", "1 S", "1.5S"] {
            assert_eq!(parsed(text), Err(Malformed), "{text:?}");
        }
        assert_eq!(parse(&HeaderMap::new()), Ok(None));

        let mut twice = HeaderMap::new();
        twice.append(GRPC_TIMEOUT, "1S".parse().unwrap());
        twice.append(GRPC_TIMEOUT, "9H".parse().unwrap());
        assert_eq!(parse(&twice), Err(Malformed));
    }

    #[test]
    fn what_is_written_is_read_back_and_never_longer() {
        for duration in [
            Duration::ZERO,
            Duration::from_micros(1),
            Duration::from_secs(99),
            Duration::from_secs(100),
            Duration::from_secs(200_000),
            Duration::from_secs(u64::from(u32::MAX)),
            Duration::MAX,
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, format(duration));
            let read = parse(&headers).unwrap().unwrap();
            assert!(read <= duration, "{duration:?} became {read:?}");
        }
    }
}
