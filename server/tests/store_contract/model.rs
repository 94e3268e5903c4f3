//! Random histories against a small model: the locks, and the one way a command may end.

use std::collections::{BTreeMap, BTreeSet};

use pasamanos_proto::model::{Action, Reason};
use pasamanos_proto::model::{CommandName, CommandState, ObservedConfig};
use pasamanos_server::domain::ports::{AcceptError, Store};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use crate::kit::*;

#[derive(Clone, Debug)]
enum Step {
    Feed(u32),
    Update(u32),
    Hold(u32),
    /// Of the n-th command so far.
    Report(usize, CommandState),
    Doubt(usize),
    NewSession,
}

fn step() -> impl Strategy<Value = Step> {
    use CommandState::{Applied, Executing, Expired, Partial, Rejected, Uncertain};
    let state =
        proptest::sample::select(vec![Applied, Executing, Expired, Partial, Rejected, Uncertain]);
    prop_oneof![
        3 => (1_u32..=3).prop_map(Step::Feed),
        2 => (1_u32..=3).prop_map(Step::Update),
        1 => (1_u32..=3).prop_map(Step::Hold),
        5 => (any::<prop::sample::Index>(), state).prop_map(|(i, s)| Step::Report(i.index(1_000), s)),
        1 => any::<prop::sample::Index>().prop_map(|i| Step::Doubt(i.index(1_000))),
        1 => Just(Step::NewSession),
    ]
}

/// What must be so, by the rules, written without the store's words.
#[derive(Default)]
struct Model {
    commands: Vec<(CommandName, u32, &'static str)>,
    states: BTreeMap<CommandName, CommandState>,
    /// UNCERTAIN from the server's silence, not by the agent's word.
    doubted: BTreeSet<CommandName>,
}

impl Model {
    fn unsettled(&self, name: &CommandName) -> bool {
        matches!(self.states[name], CommandState::Accepted | CommandState::Uncertain)
    }

    fn locked(&self, kind: &str, of: impl Fn(u32) -> bool) -> bool {
        self.commands.iter().any(|(name, f, k)| *k == kind && of(*f) && self.unsettled(name))
    }

    fn report(&mut self, name: &CommandName, to: CommandState) -> bool {
        let from = self.states[name];
        let terminal = !matches!(to, CommandState::Executing | CommandState::Accepted);
        // The agent's own doubt replaces the server's.
        let better = to == CommandState::Uncertain && self.doubted.contains(name);
        let may = terminal && self.unsettled(name) && (from != to || better);
        if may {
            self.states.insert(name.clone(), to);
            self.doubted.remove(name);
        }
        may
    }
}

pub async fn random_histories_agree_with_a_model(store: &dyn Store) {
    let mut epoch = first_session(store).await.epoch;
    let mut model = Model::default();
    let mut runner = TestRunner::deterministic();
    let steps = prop::collection::vec(step(), 600);
    let steps = steps.new_tree(&mut runner).expect("steps").current();
    let mut portion = 2_000;
    for step in steps {
        match step {
            Step::Feed(f) => {
                let answer = try_accept(store, feed(f, epoch)).await;
                let locked = model.locked("feed", |g| robot_of(g) == robot_of(f));
                match answer {
                    Ok(c) if !locked => note(&mut model, c.name, f, "feed"),
                    Err(AcceptError::DoseUnsettled(name)) if locked => {
                        assert!(model.unsettled(&name));
                    }
                    other => panic!("feed {f}, locked {locked}: {other:?}"),
                }
            }
            Step::Update(f) => {
                portion += 10;
                let new = update(store, f, epoch, portion).await;
                let locked = model.locked("update", |g| g == f);
                match try_accept(store, new).await {
                    Ok(c) if !locked => note(&mut model, c.name, f, "update"),
                    Err(AcceptError::ConfigInFlight(name)) if locked => {
                        assert!(model.unsettled(&name));
                    }
                    other => panic!("update {f}, locked {locked}: {other:?}"),
                }
            }
            Step::Hold(f) => {
                let c = accept(store, hold(f, epoch)).await;
                note(&mut model, c.name, f, "hold");
            }
            Step::Report(i, state) if !model.commands.is_empty() => {
                let (name, ..) = model.commands[i % model.commands.len()].clone();
                let command = stored(store, &name).await;
                let mut said = report(&command, state);
                if let (Action::UpdateConfig { new, .. }, CommandState::Applied) =
                    (&command.action, state)
                {
                    said.config = Some(ObservedConfig::Valid(new.clone()));
                }
                let (.., changed) = settle(store, epoch, said).await;
                assert_eq!(changed, model.report(&name, state), "{name} {state:?}");
            }
            Step::Doubt(i) if !model.commands.is_empty() => {
                let (name, ..) = model.commands[i % model.commands.len()].clone();
                let ended =
                    store.doubt(std::slice::from_ref(&name), Reason::AgentLost, NOW).await.unwrap();
                let accepted = model.states[&name] == CommandState::Accepted;
                assert_eq!(ended.len(), usize::from(accepted));
                if accepted {
                    model.states.insert(name.clone(), CommandState::Uncertain);
                    model.doubted.insert(name);
                }
            }
            Step::NewSession => {
                // A whole journal that lists nothing: what is open, or doubted from silence only,
                // never ran. What the agent itself doubted stays in doubt.
                epoch = open(store, hello(epoch)).await.epoch;
                for (name, state) in &mut model.states {
                    if *state == CommandState::Accepted || model.doubted.contains(name) {
                        *state = CommandState::Expired;
                    }
                }
                model.doubted.clear();
            }
            Step::Report(..) | Step::Doubt(_) => {}
        }
    }
    for (name, state) in &model.states {
        assert_eq!(stored(store, name).await.state, *state, "{name}");
    }
}

fn note(model: &mut Model, name: CommandName, feeder: u32, kind: &'static str) {
    model.states.insert(name.clone(), CommandState::Accepted);
    model.commands.push((name, feeder, kind));
}
