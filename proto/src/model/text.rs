//! Free text from people.

use super::Invalid;

/// A note of at most 200 characters without control characters; may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note(String);

impl Note {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, owned.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Reads a note.
///
/// # Errors
/// If it is too long or holds control characters (they would garble logs and terminals).
pub fn note(text: &str) -> Result<Note, Invalid> {
    const MAX: usize = 200;
    if text.chars().count() > MAX {
        return Err(Invalid::field("note", format!("must be at most {MAX} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Invalid::field("note", "must not hold control characters"));
    }
    Ok(Note(text.trim().into()))
}
