//! A command's life as a state machine: which word may follow which.

use pasamanos_faults::planted;
use pasamanos_proto::model::{Action, CommandState, Limits};

/// What a report does to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The report's state becomes the command's.
    Apply,
    /// Still in doubt, by better knowledge: reason, amount and config are taken, the state stays.
    Refine,
    /// Nothing new: a duplicate, or progress that decides nothing.
    Keep,
    /// It contradicts a terminal state: nothing changes, an alarm is raised.
    Contradiction,
}

/// What a report of `reported` does to a command in `stored`.
///
/// Terminal states never change, except `Uncertain`, once, by evidence.
#[must_use]
pub fn transition(stored: CommandState, reported: CommandState) -> Transition {
    use CommandState::Uncertain;
    if !reported.is_terminal() {
        return Transition::Keep;
    }
    if stored == reported {
        return if stored == Uncertain { Transition::Refine } else { Transition::Keep };
    }
    match stored {
        _ if planted!("server-end-changes") => Transition::Apply,
        s if !s.is_terminal() => Transition::Apply,
        Uncertain => Transition::Apply,
        // A late "I do not know" does not unsay what is known.
        _ if reported == Uncertain => Transition::Keep,
        _ => Transition::Contradiction,
    }
}

/// How long after its start limit a command may stay without an outcome, ms: 5 s, and what a dose
/// takes to dispense.
#[must_use]
pub fn outcome_grace_ms(action: &Action, limits: &Limits) -> i64 {
    let dose_s = match action {
        Action::FeedNow { portion_mg } => limits.dispensing_s(*portion_mg),
        _ => 0,
    };
    5_000 + i64::from(dose_s) * 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use CommandState::{Accepted, Applied, Executing, Expired, Partial, Rejected, Sent, Uncertain};

    const ALL: [CommandState; 8] =
        [Accepted, Sent, Executing, Applied, Partial, Rejected, Expired, Uncertain];

    #[test]
    fn a_terminal_state_changes_only_from_uncertain_and_only_once() {
        for first in ALL {
            for second in ALL {
                let applies = transition(first, second) == Transition::Apply;
                let may = second.is_terminal()
                    && first != second
                    && (!first.is_terminal() || first == Uncertain);
                assert_eq!(applies, may, "{first:?} then {second:?}");
            }
        }
    }

    #[test]
    fn two_different_known_ends_are_a_contradiction() {
        assert_eq!(transition(Applied, Rejected), Transition::Contradiction);
        assert_eq!(transition(Expired, Applied), Transition::Contradiction);
        assert_eq!(transition(Applied, Uncertain), Transition::Keep);
        assert_eq!(transition(Partial, Executing), Transition::Keep);
    }
}
