//! Runs commands: one worker per robot, one command at a time, in number order per feeder; a hold
//! overtakes everything. A command that the journal knows is answered from it and never run again.

mod config;
mod dose;
mod fault;
mod hold;
mod job;
mod loose;
mod ready;
mod recover;
mod resolve;
mod scalar;
mod slot;
mod verdict;
mod worker;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use pasamanos_faults::{crash_point, planted};
use pasamanos_proto::model::{
    Action, CommandName, CommandOrder, CommandReport, CommandState, Reason, RobotId,
};
use pasamanos_proto::pb;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::job::{Job, Ticket};
use self::verdict::Verdict;
use self::worker::{Message, Worker};
use crate::clock::Clock;
use crate::farm::Farm;
use crate::gate::Gate;
use crate::journal::{Entry, Journal};
use crate::outbox::Outbox;

pub(crate) use self::hold::{keep_level, to_pb as hold_to_pb};
pub(crate) use self::loose::look as look_for_loose;
pub(crate) use self::ready::{Scene, limits_of, refusals};
#[cfg(test)]
pub(crate) use self::slot::token as token_of;

/// What every command needs.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    /// The clocks.
    pub clock: Clock,
    /// The journal.
    pub journal: Journal,
    /// Where reports go.
    pub outbox: Arc<Outbox>,
    /// Which session may journal.
    pub gate: Arc<Gate>,
    /// Set when the agent ends: nothing new is begun.
    pub stop: CancellationToken,
}

/// The commands that are in the executor.
pub(crate) type InFlight = Arc<Mutex<HashSet<CommandName>>>;

/// How many commands may wait for one robot.
const QUEUE: usize = 256;

/// Hands commands to the robots' workers.
#[derive(Debug)]
pub(crate) struct Executor {
    context: Context,
    farm: Arc<Farm>,
    workers: BTreeMap<RobotId, mpsc::Sender<Message>>,
    in_flight: InFlight,
}

impl Executor {
    /// Starts a worker per robot; each begins with what the journal left open.
    pub(crate) fn start(
        context: &Context,
        farm: &Arc<Farm>,
        mut unsettled: Vec<Entry>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let in_flight = InFlight::default();
        let mut workers = BTreeMap::new();
        for (id, cell) in &farm.robots {
            let (sender, messages) = mpsc::channel(QUEUE);
            let open = unsettled.extract_if(.., |e| e.robot == *id).collect();
            let worker = Worker::new(context.clone(), Arc::clone(cell), messages);
            tasks.spawn(worker.run(open));
            workers.insert(id.clone(), sender);
        }
        for entry in unsettled {
            let (command, robot) = (&entry.order.command, &entry.robot);
            tracing::error!(%command, %robot, "an open command is of a robot that is gone");
        }
        Self { context: context.clone(), farm: Arc::clone(farm), workers, in_flight }
    }

    /// Takes a command that came in the session of that epoch.
    pub(crate) async fn receive(&self, order: CommandOrder, epoch: i64) {
        crash_point!("agent.command.received");
        let name = order.command.clone();
        let Some(cell) = self.farm.robot_of(&order.feeder) else {
            let verdict = Verdict::rejected(Reason::NotOffered)
                .with("feeder", &order.feeder)
                .with("capability", "feeder")
                .detail("this agent has no such feeder");
            self.context.outbox.push(verdict.report(&order, epoch));
            return;
        };
        if !self.enter(&name) {
            return;
        }
        let config = matches!(order.action, Action::UpdateConfig { .. });
        let ticket = Ticket::new(
            &self.in_flight,
            name.clone(),
            config.then(|| Arc::clone(cell)),
            &order.feeder,
        );
        match self.context.journal.lookup(&name).await {
            Ok(None) => {}
            Ok(Some(_)) if planted!("agent-dedupe-in-memory") => {}
            Ok(Some(entry)) => return self.answer(&entry, &order),
            Err(e) => {
                tracing::error!(command = %name, error = %e, "not taken: the journal cannot be asked");
                return;
            }
        }
        tracing::info!(command = %name, feeder = %order.feeder, kind = order.action.kind().as_str(), "command received");
        self.context.outbox.push(progress(&order, CommandState::Accepted, epoch));
        let job = Job::new(self.context.clone(), Arc::clone(cell), order, epoch, ticket);
        let full = match self.workers.get(&cell.id) {
            Some(worker) => worker.try_send(Message::Order(Box::new(job))).is_err(),
            None => true,
        };
        if full {
            tracing::warn!(command = %name, "not taken: too many commands wait for the robot");
        }
    }

    /// A person settled a command, by the server's word.
    pub(crate) async fn resolve(&self, name: &CommandName, resolution: pb::Resolution) {
        let entry = match self.context.journal.lookup(name).await {
            Ok(Some(entry)) if !entry.settled => entry,
            Ok(_) => return,
            Err(e) => {
                tracing::error!(command = %name, error = %e, "a settlement was not journaled");
                return;
            }
        };
        if let Some(cell) = self.farm.robots.get(&entry.robot) {
            resolve::settle(cell, &entry, &resolution).await;
        }
    }

    fn enter(&self, name: &CommandName) -> bool {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone())
    }

    /// From the journal: it was run, or is being fenced.
    fn answer(&self, entry: &Entry, order: &CommandOrder) {
        if entry.order.body_hash != order.body_hash {
            tracing::error!(command = %order.command, "the name stands for another body; not run");
        }
        let report = entry
            .report
            .clone()
            .unwrap_or_else(|| progress(&entry.order, CommandState::Executing, entry.epoch));
        self.context.outbox.push(report);
    }
}

/// Where a command is, short of its end.
pub(crate) fn progress(order: &CommandOrder, state: CommandState, epoch: i64) -> CommandReport {
    CommandReport {
        command: order.command.clone(),
        state,
        body_hash: order.body_hash,
        reason: Reason::Unspecified,
        metadata: BTreeMap::new(),
        detail: String::new(),
        dispensed: None,
        config: None,
        memory_lost: false,
        journaled_epoch: epoch,
    }
}
