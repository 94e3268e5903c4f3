//! Who asks: people and scripts that change their mind, lose answers, try again, and mix up ids.

use std::time::Duration;

use pasamanos_proto::model::{
    Action, BodyHash, CommandName, ConfigField, FarmId, FeederConfig, FeederName, FieldSet,
    Mutation, Reason, RequestId, Resolve, UpdateConfig, Verdict, note,
};
use pasamanos_proto::pb;
use pasamanos_server::control::{Answer, Caller, Control};
use pasamanos_server::domain::Error;
use std::sync::Arc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::book::Book;
use crate::testing::config;

/// What somebody wants.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub feeder: FeederName,
    pub request: RequestId,
    pub what: Ask,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Feed(i32),
    /// Sets the portion, based on this etag.
    Portion(i32, String),
    Hold,
    HoldFarm,
    Resume,
    Reset(u32),
    /// A person says what became of it.
    Resolve(CommandName, bool),
}

/// How a caller behaves.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    /// For how long the answer is waited for by the server.
    pub wait: Duration,
    /// The caller goes away after this.
    pub leaves: Duration,
    /// Only to see what would happen.
    pub validate_only: bool,
}

/// What came of one try.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Came {
    /// An answer with the command.
    Answered,
    /// Certainly nothing was left behind.
    Refused {
        /// Whether the same may be taken later.
        again: bool,
        /// Why.
        why: Reason,
    },
    /// Nobody knows.
    Unknown,
}

impl Wish {
    /// The name that its command has.
    pub(super) fn name(&self) -> CommandName {
        let farm = self.feeder.farm.clone();
        match self.what {
            Ask::HoldFarm => CommandName::new(farm, self.request.child(&self.feeder)),
            _ => CommandName::new(farm, self.request),
        }
    }

    /// Asks once.
    pub(super) async fn ask(
        &self,
        server: Option<(Arc<Control>, CancellationToken)>,
        patience: &Patience,
        book: &Book,
    ) -> Came {
        let name = self.name();
        let resolves = matches!(self.what, Ask::Resolve(..));
        let Some((control, power)) = server else {
            return Came::Refused { again: true, why: Reason::Unspecified };
        };
        let caller = Caller {
            author: "ana".into(),
            wait: patience.wait,
            request_hash: BodyHash::of(format!("{:?} {}", self.what, self.feeder).as_bytes()),
        };
        let asked = tokio::select! {
            answer = self.call(&control, caller, patience.validate_only) => Some(answer),
            () = power.cancelled() => None,
            () = sleep(patience.leaves) => None,
        };
        let came = match asked {
            None => Came::Unknown,
            Some(Ok(answer)) => {
                match answer.command {
                    Some(command) if resolves => book.answered(&self.target(), &command),
                    Some(command) => self.answered(&name, &command, book),
                    None => {}
                }
                if patience.validate_only {
                    Came::Refused { again: false, why: Reason::Unspecified }
                } else {
                    Came::Answered
                }
            }
            Some(Err(e)) => self.refused(&name, &e, book),
        };
        if !resolves {
            book.tried(&name, matches!(came, Came::Refused { .. }));
        }
        came
    }

    fn target(&self) -> CommandName {
        match &self.what {
            Ask::Resolve(name, _) => name.clone(),
            _ => self.name(),
        }
    }

    /// P5: one id never answers for another body.
    fn answered(&self, name: &CommandName, command: &pb::Command, book: &Book) {
        use pb::command::Action as A;
        book.answered(name, command);
        let same = match (&self.what, &command.action) {
            (Ask::Feed(mg), Some(A::FeedNow(a))) => a.portion_mg == *mg,
            (Ask::Portion(mg, _), Some(A::UpdateConfig(a))) => {
                a.new.as_ref().and_then(|c| c.portion_mg) == Some(*mg)
            }
            (Ask::Hold | Ask::HoldFarm, Some(A::Hold(_)))
            | (Ask::Resume, Some(A::Resume(_)))
            | (Ask::Reset(_), Some(A::ResetFault(_))) => true,
            _ => false,
        };
        if !same {
            book.wrong(format!("{name}: {:?} was answered with {:?}", self.what, command.action));
        }
    }

    fn refused(&self, name: &CommandName, e: &Error, book: &Book) -> Came {
        book.met(format!("refused {}", e.reason.name()));
        let names_itself =
            e.metadata.get("command").is_some_and(|command| *command == name.to_string());
        let why = e.reason;
        match why {
            Reason::Internal => {
                book.wrong(format!("{name}: {:?}: an internal error: {e}", self.what));
                Came::Unknown
            }
            // Accepted, maybe; or the id is known as another's.
            Reason::OutcomePending
            | Reason::ChangedAtFarm
            | Reason::AcceptanceUnknown
            | Reason::RequestIdReused => Came::Unknown,
            _ if names_itself => Came::Unknown,
            Reason::AgentMoving | Reason::DatabaseUnreachable | Reason::ServerStopping => {
                Came::Refused { again: true, why }
            }
            _ => Came::Refused { again: false, why },
        }
    }

    async fn call(
        &self,
        control: &Arc<Control>,
        caller: Caller,
        validate_only: bool,
    ) -> Result<Answer, Error> {
        let request = self.request;
        let note = note("").unwrap();
        let target = self.feeder.clone();
        let act = |action| Mutation {
            target: target.clone(),
            request,
            validate_only,
            note: note.clone(),
            action,
        };
        match &self.what {
            Ask::Feed(mg) => control.act(act(Action::FeedNow { portion_mg: *mg }), caller).await,
            Ask::Hold => control.act(act(Action::Hold), caller).await,
            Ask::Resume => control.act(act(Action::Resume), caller).await,
            Ask::Reset(code) => {
                control.act(act(Action::ResetFault { fault_code: *code }), caller).await
            }
            Ask::Portion(mg, etag) => {
                let patch = FeederConfig { portion_mg: Some(*mg), ..config() };
                let fields = FieldSet::from_iter([ConfigField::Portion]);
                let action = UpdateConfig { patch, fields, etag: etag.clone() };
                let m = Mutation { target, request, validate_only, note, action };
                control.update_config(m, caller).await
            }
            Ask::Resolve(name, fed) => {
                let verdict = if *fed { Verdict::Fed } else { Verdict::NotFed };
                let action = Resolve { verdict, fed_mg: None };
                let m = Mutation { target: name.clone(), request, validate_only, note, action };
                control.resolve(m, caller).await
            }
            Ask::HoldFarm => {
                let target: FarmId = target.farm.clone();
                let m = Mutation { target, request, validate_only, note, action: () };
                let held = control.hold_farm(m, caller).await?.held;
                // Only its own feeder's command is looked at; the others have names of their own.
                let own = self.name().to_string();
                let command = held.into_iter().find(|c| c.name == own);
                if command.is_none() && !validate_only {
                    return Err(Error::unavailable(Reason::OutcomePending, "not held"));
                }
                Ok(Answer { command, ..Answer::default() })
            }
        }
    }
}
