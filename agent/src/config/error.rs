//! What is wrong with `agent.toml`, said so that the installer finds the place.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration cannot be used. Names key, source and, for the file, the line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    source: Source,
    key: String,
    message: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    File { path: PathBuf, line: Option<usize> },
    Override { names: &'static str },
}

impl ConfigError {
    /// In the file as a whole.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        let source = Source::File { path: path.into(), line: None };
        Self { source, key: String::new(), message: message.into() }
    }

    /// Of a value given by flag or environment.
    pub(crate) fn overridden(names: &'static str, message: impl Into<String>) -> Self {
        let source = Source::Override { names };
        Self { source, key: String::new(), message: message.into() }
    }

    /// The line it is on, if it is on one.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        match self.source {
            Source::File { line, .. } => line,
            Source::Override { .. } => None,
        }
    }

    /// The key at fault; empty if it is none in particular.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File { path, line: Some(line) } => write!(f, "{}:{line}: ", path.display())?,
            Source::File { path, line: None } => write!(f, "{}: ", path.display())?,
            Source::Override { names } => write!(f, "{names}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for ConfigError {}

/// A fault at a place of the text, before the file's name and lines are known.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) span: Option<Range<usize>>,
    pub(crate) key: String,
    pub(crate) message: String,
}

impl At {
    pub(crate) fn new(
        span: &Range<usize>,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { span: Some(span.clone()), key: key.into(), message: message.into() }
    }

    /// Puts the fault into its file.
    pub(crate) fn locate(self, path: &Path, text: &str) -> ConfigError {
        let line = self.span.map(|s| line_of(text, s.start));
        let source = Source::File { path: path.into(), line };
        ConfigError { source, key: self.key, message: self.message }
    }
}

/// A fault of the TOML reader, with the key that it does not name itself.
pub(crate) fn from_toml(e: &toml::de::Error, text: &str) -> At {
    let key = e.span().map_or_else(String::new, |s| key_at(text, s.start));
    let message = e.message().trim().replace('\n', "; ");
    At { span: e.span(), key, message }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// The key whose value stands at the offset, or that stands there itself.
fn key_at(text: &str, offset: usize) -> String {
    let start = text.get(..offset).and_then(|t| t.rfind('\n')).map_or(0, |i| i + 1);
    let line = text.get(start..).and_then(|t| t.lines().next()).unwrap_or_default();
    let column = offset - start;
    let before = line.get(..column).unwrap_or(line);
    let key = match before.rfind('=') {
        // `key = value` with the fault in the value, or `{ a = 1, key` with the fault in a key.
        Some(eq) if !before[eq..].contains([',', '{']) => before[..eq].rsplit([',', '{']).next(),
        _ => line.get(column..).unwrap_or_default().split(['=', ']', ',', '}']).next(),
    };
    key.unwrap_or_default().trim().trim_matches(['[', '"']).to_owned()
}
