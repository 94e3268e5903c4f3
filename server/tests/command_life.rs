//! A command's life as a state machine beside a reference that knows only what was ever said: the
//! first known end is the end, doubt lasts until then, and nothing unsays it.

use pasamanos_proto::model::CommandState;
use pasamanos_server::domain::command::{Transition, transition};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

const WORDS: [CommandState; 8] = [
    CommandState::Accepted,
    CommandState::Sent,
    CommandState::Executing,
    CommandState::Applied,
    CommandState::Partial,
    CommandState::Rejected,
    CommandState::Expired,
    CommandState::Uncertain,
];

/// Everything that was said of a command, in order.
#[derive(Clone, Debug, Default)]
struct Said(Vec<CommandState>);

impl Said {
    fn known_end(&self) -> Option<CommandState> {
        let known = |s: &CommandState| s.is_terminal() && *s != CommandState::Uncertain;
        self.0.iter().copied().find(known)
    }

    fn state(&self) -> CommandState {
        let doubted = self.0.contains(&CommandState::Uncertain);
        let without = if doubted { CommandState::Uncertain } else { CommandState::Accepted };
        self.known_end().unwrap_or(without)
    }
}

impl ReferenceStateMachine for Said {
    type State = Self;
    type Transition = CommandState;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<CommandState> {
        prop::sample::select(&WORDS[..]).boxed()
    }

    fn apply(mut said: Self, word: &CommandState) -> Self {
        said.0.push(*word);
        said
    }
}

/// The product's: a stored state, and what each report did to it.
#[derive(Debug)]
struct Stored {
    state: CommandState,
    changes: usize,
    alarms: usize,
}

impl StateMachineTest for Stored {
    type SystemUnderTest = Self;
    type Reference = Said;

    fn init_test(_: &Said) -> Self {
        Self { state: CommandState::Accepted, changes: 0, alarms: 0 }
    }

    fn apply(mut stored: Self, _: &Said, word: CommandState) -> Self {
        match transition(stored.state, word) {
            Transition::Apply => {
                stored.state = word;
                stored.changes += 1;
            }
            Transition::Refine => assert_eq!(stored.state, CommandState::Uncertain),
            Transition::Keep => {}
            Transition::Contradiction => stored.alarms += 1,
        }
        stored
    }

    fn check_invariants(stored: &Self, said: &Said) {
        assert_eq!(stored.state, said.state(), "after {:?}", said.0);
        assert!(stored.changes <= 2, "an end changes only from UNCERTAIN, once: {:?}", said.0);
        let end = said.known_end();
        let against = said
            .0
            .iter()
            .filter(|s| s.is_terminal() && **s != CommandState::Uncertain && Some(**s) != end);
        assert_eq!(stored.alarms, against.count(), "each contradiction is an alarm: {:?}", said.0);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn p2_an_end_is_the_first_that_is_known_and_stays(sequential 1..40 => Stored);
}
