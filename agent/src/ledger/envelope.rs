//! The rolling 24 h sum of a feeder, of any origin, on a clock that does not step.

use pasamanos_proto::model::CommandName;

use crate::journal::EnvelopeEntry;

/// It rolls over this.
const WINDOW_MS: i64 = 86_400_000;

/// One feeder's envelope.
#[derive(Clone, Debug, Default)]
pub(crate) struct Envelope(Vec<EnvelopeEntry>);

impl Envelope {
    /// Of what was journaled.
    pub(crate) fn new(entries: Vec<EnvelopeEntry>) -> Self {
        Self(entries)
    }

    /// Counts an amount.
    pub(crate) fn add(&mut self, entry: EnvelopeEntry) {
        self.0.retain(|e| entry.at_ms - e.at_ms < WINDOW_MS);
        self.0.push(entry);
    }

    /// Puts what a reserved amount came to in its place.
    pub(crate) fn settle(&mut self, command: &CommandName, mg: i64) {
        for entry in self.0.iter_mut().filter(|e| e.command.as_ref() == Some(command)) {
            entry.mg = mg;
        }
    }

    /// What was fed or is reserved in the 24 h before, mg.
    pub(crate) fn sum_mg(&self, now_ms: i64, assumed: bool) -> i64 {
        let recent = self.0.iter().filter(|e| now_ms - e.at_ms < WINDOW_MS);
        recent.filter(|e| assumed || !e.assumed).map(|e| e.mg).sum()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn rolls_and_settles() {
        let command: CommandName =
            "farms/abc/commands/0191d7a2-7c4e-7b1a-9f3e-2b8f6d0c5a11".parse().unwrap();
        let entry = |at_ms, mg, command| EnvelopeEntry { at_ms, mg, command, assumed: false };
        let mut e = Envelope::default();
        e.add(entry(0, 100, None));
        e.add(entry(1_000, 500, Some(command.clone())));
        e.add(EnvelopeEntry { assumed: true, ..entry(1_000, 7, None) });
        assert_eq!(e.sum_mg(2_000, true), 607);
        assert_eq!(e.sum_mg(2_000, false), 600);
        e.settle(&command, 200);
        assert_eq!(e.sum_mg(WINDOW_MS - 1, false), 300);
        assert_eq!(e.sum_mg(WINDOW_MS, false), 200);
        assert_eq!(e.sum_mg(WINDOW_MS + 1_000, true), 0);
    }
}
