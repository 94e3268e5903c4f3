//! Durations, amounts and units as `agent.toml` writes them. No number is without its unit.

use std::time::Duration;

/// What a tag measures; each has its own units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// Of feed; kept in mg.
    Mass,
    /// Of time; kept in ms.
    Time,
    /// Dissolved oxygen; kept in µg/L.
    Oxygen,
    /// Oxygen saturation; kept in ‰.
    Saturation,
    /// Of water; kept in m°C.
    Temperature,
    /// pH; kept in pH × 1000.
    Acidity,
    /// A yes or no.
    Flag,
    /// One of the words of its enum map.
    Word,
    /// A bare count, sequence or code.
    Count,
    /// A block of checked words.
    Block,
}

impl Dimension {
    /// The units it may have, each with how many of the kept unit one of it is.
    #[must_use]
    pub fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Self::Mass => &[("mg", 1.0), ("g", 1e3), ("kg", 1e6)],
            Self::Time => &[("ms", 1.0), ("s", 1e3), ("min", 6e4), ("h", 3.6e6)],
            Self::Oxygen => &[("ug/L", 1.0), ("mg/L", 1e3)],
            Self::Saturation => &[("permille", 1.0), ("percent", 10.0)],
            Self::Temperature => &[("millicelsius", 1.0), ("celsius", 1e3)],
            Self::Acidity => &[("pH", 1e3)],
            Self::Flag | Self::Word | Self::Count | Self::Block => &[],
        }
    }

    /// The name of the unit it is kept in; empty for none.
    #[must_use]
    pub fn kept_in(self) -> &'static str {
        match self {
            Self::Mass => "mg",
            Self::Time => "ms",
            Self::Oxygen => "ug/L",
            Self::Saturation => "permille",
            Self::Temperature => "millicelsius",
            Self::Acidity => "milli-pH",
            Self::Flag | Self::Word | Self::Count | Self::Block => "",
        }
    }

    /// How many of the kept unit one of this unit is.
    ///
    /// # Errors
    /// If it has no such unit, or needs one and has none.
    pub fn factor(self, unit: Option<&str>) -> Result<f64, String> {
        let units = self.units();
        let names = || units.iter().map(|u| u.0).collect::<Vec<_>>().join(", ");
        match unit {
            None if units.is_empty() => Ok(1.0),
            None => Err(format!("needs a unit, one of {}", names())),
            Some(unit) => match units.iter().find(|u| u.0 == unit) {
                Some((_, factor)) => Ok(*factor),
                None if self == Self::Mass
                    && ["pulses", "revolutions", "s", "ms"].contains(&unit) =>
                {
                    Err(format!(
                        "unit {unit:?} needs a [[calibration]], which this version does not offer; \
                         scale it to mg, g or kg in the PLC"
                    ))
                }
                None if units.is_empty() => Err("takes no unit".into()),
                None => Err(format!("unit must be one of {}, is {unit:?}", names())),
            },
        }
    }
}

/// Splits `12.5 mg/s` into its number, in thousandths, and its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if part.len() > 3 || whole.is_empty() {
        return None;
    }
    let thousandths: u64 = format!("{part:0<3}").parse().ok()?;
    let milli = whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(thousandths)?;
    Some((milli, unit.trim()))
}

/// Reads `250ms`, `10s`, `1.5 min`, `24h`, `1d`.
///
/// # Errors
/// If it is not of that form.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("must be a duration such as \"250ms\", \"10s\" or \"24h\", is {text:?}");
    let (milli, unit) = split(text).ok_or_else(bad)?;
    let ms_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(bad()),
    };
    let micros = milli.checked_mul(ms_per_unit).ok_or_else(bad)?;
    Ok(Duration::from_micros(micros))
}

/// Reads an amount of feed such as `50 mg`, `1.5 g` or, with the suffix `/s`, a rate; in mg.
///
/// # Errors
/// If it is not of that form, not whole milligrams, or not above zero.
pub fn milligrams(text: &str, suffix: &str) -> Result<i32, String> {
    let example = format!("must be an amount such as \"50 mg{suffix}\" or \"1.5 g{suffix}\"");
    let bad = || format!("{example}, is {text:?}");
    let (milli, unit) = split(text).ok_or_else(bad)?;
    let mg_per_unit: u64 = match unit.strip_suffix(suffix).ok_or_else(bad)?.trim() {
        "mg" => 1,
        "g" => 1_000,
        "kg" => 1_000_000,
        _ => return Err(bad()),
    };
    let thousandths = milli.checked_mul(mg_per_unit).ok_or_else(bad)?;
    if thousandths % 1_000 != 0 {
        return Err(format!("must be whole milligrams, is {text:?}"));
    }
    let mg = i32::try_from(thousandths / 1_000).map_err(|_| bad())?;
    if mg > 0 { Ok(mg) } else { Err(format!("must be above 0, is {text:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1.5 min"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1d"), Ok(Duration::from_hours(24)));
        assert!(duration("250").is_err());
        assert!(duration("-1s").is_err());
        assert!(duration("99999999999999999999s").is_err());
    }

    #[test]
    fn amounts_are_whole_milligrams() {
        assert_eq!(milligrams("1.5 g", ""), Ok(1_500));
        assert_eq!(milligrams("500mg/s", "/s"), Ok(500));
        assert!(milligrams("0.5 mg", "").is_err());
        assert!(milligrams("0 mg", "").is_err());
        assert!(milligrams("500", "").is_err());
        assert!(milligrams("500 mg", "/s").is_err());
    }

    #[test]
    fn a_mass_in_pulses_is_refused_with_its_reason() {
        let e = Dimension::Mass.factor(Some("pulses")).err().unwrap_or_default();
        assert!(e.contains("[[calibration]]"), "{e}");
        assert!(Dimension::Mass.factor(None).is_err());
        assert_eq!(Dimension::Flag.factor(None), Ok(1.0));
    }
}
