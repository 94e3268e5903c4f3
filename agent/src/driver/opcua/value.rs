//! Values on the wire: quality first, then the type that the tag map names, and nothing else.

use opcua::types::{DataValue, Variant, VariantScalarTypeId};

use crate::config::Tag;
use crate::config::tags::TagType;
use crate::driver::DriverError;

/// The value of a tag if its quality is good.
fn good<'a>(tag: &Tag, value: &'a DataValue) -> Result<&'a Variant, DriverError> {
    let status = value.status();
    if !status.is_good() {
        return Err(DriverError::BadData(format!("{} has quality {status}", tag.address)));
    }
    match &value.value {
        Some(Variant::Empty) | None => {
            Err(DriverError::BadData(format!("{} has no value", tag.address)))
        }
        Some(variant) => Ok(variant),
    }
}

/// The raw number of a tag; a bool is 0 or 1.
pub(super) fn number(tag: &Tag, value: &DataValue) -> Result<f64, DriverError> {
    let variant = good(tag, value)?;
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    let read = match (tag.kind, variant) {
        (TagType::Bool, Variant::Boolean(x)) => f64::from(u8::from(*x)),
        (TagType::Byte, Variant::Byte(x)) => f64::from(*x),
        (TagType::Sbyte, Variant::SByte(x)) => f64::from(*x),
        (TagType::Int16, Variant::Int16(x)) => f64::from(*x),
        (TagType::Uint16, Variant::UInt16(x)) => f64::from(*x),
        (TagType::Int32, Variant::Int32(x)) => f64::from(*x),
        (TagType::Uint32, Variant::UInt32(x)) => f64::from(*x),
        (TagType::Int64, Variant::Int64(x)) => *x as f64,
        (TagType::Uint64, Variant::UInt64(x)) => *x as f64,
        (TagType::Float, Variant::Float(x)) => f64::from(*x),
        (TagType::Double, Variant::Double(x)) => *x,
        (_, other) => {
            let message = format!("{} is {}, not {:?}", tag.address, type_name(other), tag.kind);
            return Err(DriverError::BadData(message));
        }
    };
    if read.is_finite() {
        Ok(read)
    } else {
        Err(DriverError::BadData(format!("{} is not a number", tag.address)))
    }
}

/// The value of a tag in the unit that we keep, to the nearest whole one.
pub(super) fn scaled(tag: &Tag, value: &DataValue) -> Result<i64, DriverError> {
    let kept = tag.scaled(number(tag, value)?).round();
    #[allow(clippy::cast_possible_truncation, reason = "just checked")]
    if kept.abs() < 9e15 {
        Ok(kept as i64)
    } else {
        Err(DriverError::BadData(format!("{} is {kept}, which cannot be", tag.address)))
    }
}

/// The value of a counter, wrapping at 32 bits.
pub(super) fn count(tag: &Tag, value: &DataValue) -> Result<u32, DriverError> {
    let whole = scaled(tag, value)?;
    let bad = |_| DriverError::BadData(format!("{} is {whole}, below 0", tag.address));
    let wrapped = u64::try_from(whole).map_err(bad)? & u64::from(u32::MAX);
    Ok(u32::try_from(wrapped).unwrap_or(0))
}

/// Whether a flag is set.
pub(super) fn flag(tag: &Tag, value: &DataValue) -> Result<bool, DriverError> {
    let raw = scaled(tag, value)?;
    Ok(match (tag.equals, tag.bit) {
        (Some(equals), _) => raw == equals,
        (None, Some(bit)) => raw.checked_shr(bit.into()).unwrap_or(0) & 1 == 1,
        (None, None) => raw != 0,
    })
}

/// The word of a tag with an enum map; `None` if the map has none for its value.
pub(super) fn word<'a>(tag: &'a Tag, value: &DataValue) -> Result<Option<&'a str>, DriverError> {
    let raw = scaled(tag, value)?;
    Ok(tag.values.iter().find(|(_, of)| **of == raw).map(|(word, _)| word.as_str()))
}

/// The words of a block.
pub(super) fn words(tag: &Tag, value: &DataValue) -> Result<Vec<u32>, DriverError> {
    let variant = good(tag, value)?;
    let not = || {
        let message = format!("{} is {}, not an array of UInt32", tag.address, type_name(variant));
        DriverError::BadData(message)
    };
    match variant {
        Variant::Array(array) if array.value_type == VariantScalarTypeId::UInt32 => {
            let one = |v: &Variant| match v {
                Variant::UInt32(word) => Ok(*word),
                _ => Err(not()),
            };
            array.values.iter().map(one).collect()
        }
        _ => Err(not()),
    }
}

/// What to write so that the tag is this in the unit that we keep.
pub(super) fn variant(tag: &Tag, kept: f64) -> Result<Variant, DriverError> {
    let raw = tag.raw(kept);
    if tag.kind == TagType::Double {
        return Ok(Variant::Double(raw));
    }
    #[allow(
        clippy::cast_possible_truncation,
        reason = "floats of this size lose nothing that counts"
    )]
    if tag.kind == TagType::Float {
        return Ok(Variant::Float(raw as f32));
    }
    let whole = raw.round();
    let refused = || {
        let message = format!("{} as {:?} cannot hold {kept} {}", tag.address, tag.kind, tag.unit);
        DriverError::Refused(message)
    };
    if (raw - whole).abs() > 1e-6 || whole.abs() > 9e15 {
        return Err(refused());
    }
    #[allow(clippy::cast_possible_truncation, reason = "just checked")]
    let whole = whole as i64;
    let out = match tag.kind {
        TagType::Bool => Some(Variant::Boolean(whole != 0)),
        TagType::Byte => u8::try_from(whole).ok().map(Variant::Byte),
        TagType::Sbyte => i8::try_from(whole).ok().map(Variant::SByte),
        TagType::Int16 => i16::try_from(whole).ok().map(Variant::Int16),
        TagType::Uint16 => u16::try_from(whole).ok().map(Variant::UInt16),
        TagType::Int32 => i32::try_from(whole).ok().map(Variant::Int32),
        TagType::Uint32 => u32::try_from(whole).ok().map(Variant::UInt32),
        TagType::Int64 => Some(Variant::Int64(whole)),
        TagType::Uint64 => u64::try_from(whole).ok().map(Variant::UInt64),
        TagType::Float | TagType::Double | TagType::Words => None,
    };
    out.ok_or_else(refused)
}

/// A value for people.
pub(super) fn shown(value: &DataValue) -> String {
    match &value.value {
        None | Some(Variant::Empty) => "-".into(),
        Some(Variant::Array(array)) => {
            let all: Vec<_> = array.values.iter().map(ToString::to_string).collect();
            format!("[{}]", all.join(" "))
        }
        Some(variant) => variant.to_string(),
    }
}

fn type_name(variant: &Variant) -> String {
    format!("{:?}", variant.type_id())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use opcua::types::StatusCode;

    use super::*;

    fn tag(kind: TagType, scale: f64, factor: f64) -> Tag {
        Tag { scale, factor, ..Tag::of_block("urn:x", "R1", "T", kind) }
    }

    fn value(variant: Variant) -> DataValue {
        DataValue::value_only(variant)
    }

    #[test]
    fn quality_is_looked_at_before_the_value() {
        let mut bad = value(Variant::Double(8.2));
        bad.status = Some(StatusCode::BadSensorFailure);
        assert!(matches!(
            number(&tag(TagType::Double, 1.0, 1.0), &bad),
            Err(DriverError::BadData(_))
        ));
    }

    #[test]
    fn another_type_is_not_guessed_at() {
        let of = tag(TagType::Uint32, 1.0, 1.0);
        assert!(number(&of, &value(Variant::Int32(5))).is_err());
        assert!(number(&of, &value(Variant::Boolean(true))).is_err());
        assert_eq!(scaled(&of, &value(Variant::UInt32(5))).unwrap(), 5);
        assert!(
            number(&tag(TagType::Double, 1.0, 1.0), &value(Variant::Double(f64::NAN))).is_err()
        );
    }

    #[test]
    fn a_scaled_value_comes_back() {
        let grams = tag(TagType::Double, 1.0, 1e3);
        assert_eq!(variant(&grams, 1_500.0).unwrap(), Variant::Double(1.5));
        assert_eq!(scaled(&grams, &value(Variant::Double(1.499_999_9))).unwrap(), 1_500);
        let decigrams = tag(TagType::Uint16, 0.1, 1e3);
        assert_eq!(variant(&decigrams, 1_500.0).unwrap(), Variant::UInt16(15));
        assert!(matches!(variant(&decigrams, 1_550.0), Err(DriverError::Refused(_))));
        assert!(matches!(variant(&decigrams, 1e9), Err(DriverError::Refused(_))));
    }

    #[test]
    fn a_flag_may_hide_in_a_number() {
        let two = Tag { equals: Some(2), ..tag(TagType::Int32, 1.0, 1.0) };
        assert!(flag(&two, &value(Variant::Int32(2))).unwrap());
        assert!(!flag(&two, &value(Variant::Int32(3))).unwrap());
        let bit = Tag { bit: Some(1), ..tag(TagType::Int32, 1.0, 1.0) };
        assert!(flag(&bit, &value(Variant::Int32(3))).unwrap());
        assert!(!flag(&bit, &value(Variant::Int32(4))).unwrap());
    }
}
