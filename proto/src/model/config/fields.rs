//! Which fields of a config are meant: masks, and what differs.

use std::collections::BTreeSet;

use prost_types::FieldMask;

use crate::model::Invalid;

/// A field of the config that a mask can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigField {
    /// `mode`.
    Mode,
    /// `portion_mg`.
    Portion,
    /// `interval`.
    Interval,
    /// `windows`.
    Windows,
    /// `daily_cap_mg`.
    DailyCap,
    /// `interlocks.min_dissolved_oxygen_ug_per_l`.
    MinDissolvedOxygen,
    /// `interlocks.min_oxygen_saturation_permille`.
    MinOxygenSaturation,
    /// `interlocks.max_water_temperature_millicelsius`.
    MaxWaterTemperature,
}

impl ConfigField {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Mode,
        Self::Portion,
        Self::Interval,
        Self::Windows,
        Self::DailyCap,
        Self::MinDissolvedOxygen,
        Self::MinOxygenSaturation,
        Self::MaxWaterTemperature,
    ];

    /// Its path relative to `config`.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Mode => "mode",
            Self::Portion => "portion_mg",
            Self::Interval => "interval",
            Self::Windows => "windows",
            Self::DailyCap => "daily_cap_mg",
            Self::MinDissolvedOxygen => "interlocks.min_dissolved_oxygen_ug_per_l",
            Self::MinOxygenSaturation => "interlocks.min_oxygen_saturation_permille",
            Self::MaxWaterTemperature => "interlocks.max_water_temperature_millicelsius",
        }
    }

    /// The field of a path.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|f| f.path() == path)
    }
}

/// A set of config fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeSet<ConfigField>);

impl FieldSet {
    /// Every field.
    #[must_use]
    pub fn all() -> Self {
        Self(ConfigField::ALL.into())
    }

    /// Whether the field is in it.
    #[must_use]
    pub fn contains(&self, field: ConfigField) -> bool {
        self.0.contains(&field)
    }

    /// Its fields in order.
    pub fn iter(&self) -> impl Iterator<Item = ConfigField> + '_ {
        self.0.iter().copied()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a mask: paths relative to `config`, `*` for all, `interlocks` for its three.
    ///
    /// # Errors
    /// If it is empty or names an unknown path.
    pub fn from_mask(mask: Option<&FieldMask>) -> Result<Self, Invalid> {
        let paths = mask.map_or(&[][..], |m| &m.paths[..]);
        if paths.is_empty() {
            return Err(Invalid::field(
                "update_mask",
                "is required: name the fields to change, relative to config, such as portion_mg",
            ));
        }
        let mut set = BTreeSet::new();
        for path in paths {
            match path.as_str() {
                "*" => set.extend(ConfigField::ALL),
                "interlocks" => set.extend([
                    ConfigField::MinDissolvedOxygen,
                    ConfigField::MinOxygenSaturation,
                    ConfigField::MaxWaterTemperature,
                ]),
                path => {
                    let field = ConfigField::from_path(path).ok_or_else(|| {
                        let known = "paths are relative to config, such as portion_mg";
                        Invalid::field("update_mask", format!("does not know {path:?}; {known}"))
                    })?;
                    set.insert(field);
                }
            }
        }
        Ok(Self(set))
    }

    /// As a mask.
    #[must_use]
    pub fn to_mask(&self) -> FieldMask {
        FieldMask { paths: self.iter().map(|f| f.path().into()).collect() }
    }
}

impl FromIterator<ConfigField> for FieldSet {
    fn from_iter<I: IntoIterator<Item = ConfigField>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}
