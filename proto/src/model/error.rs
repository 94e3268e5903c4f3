//! What is wrong with a message: every field that is, at once.

use std::fmt;

use super::Reason;

/// One field and the rule that it breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path from the request's root, in `snake_case`, such as `config.portion_mg`.
    pub field: String,
    /// What is wrong and what would be right, in English.
    pub description: String,
    /// The stable reason of this violation.
    pub reason: Reason,
}

/// A message that breaks at least one rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// At least one.
    pub violations: Vec<Violation>,
}

impl Invalid {
    /// A single violation with reason `INVALID_FIELD`.
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::because(Reason::InvalidField, field, description)
    }

    /// A single violation.
    pub fn because(
        reason: Reason,
        field: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        let violation = Violation { field: field.into(), description: description.into(), reason };
        Self { violations: vec![violation] }
    }

    /// Puts `prefix.` before every field.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        for v in &mut self.violations {
            v.field =
                if v.field.is_empty() { prefix.into() } else { format!("{prefix}.{}", v.field) };
        }
        self
    }

    /// The reason of the whole: that of the first violation.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.violations.first().map_or(Reason::InvalidField, |v| v.reason)
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, v) in self.violations.iter().enumerate() {
            let sep = if i == 0 { "" } else { "; " };
            write!(f, "{sep}{}: {}", v.field, v.description)?;
        }
        Ok(())
    }
}

/// Collects violations, so that a caller learns of all at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// Notes a violation with reason `INVALID_FIELD`.
    pub fn push(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.0.extend(Invalid::field(field, description).violations);
    }

    /// Unwraps a parsed value, or notes what was wrong with it.
    pub fn take<T>(&mut self, parsed: Result<T, Invalid>) -> Option<T> {
        parsed.map_err(|e| self.0.extend(e.violations)).ok()
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails if anything was noted.
    ///
    /// # Errors
    /// All that was noted.
    pub fn check(self) -> Result<(), Invalid> {
        if self.0.is_empty() { Ok(()) } else { Err(Invalid { violations: self.0 }) }
    }

    /// Ends with the value if nothing was noted and it is there.
    ///
    /// # Errors
    /// All that was noted.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Invalid> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(Invalid { violations: self.0 }),
        }
    }
}
