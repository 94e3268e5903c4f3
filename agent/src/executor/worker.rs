//! One robot's worker: one command at a time, holds beside it, and a dose in doubt beside both.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use pasamanos_faults::planted;
use pasamanos_proto::model::Action;
use tokio::sync::mpsc;

use super::dose::{self, Doubt};
use super::job::Job;
use super::{Context, config, fault, hold, recover};
use crate::farm::RobotCell;
use crate::journal::Entry;

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Run this.
    Order(Box<Job>),
}

/// A command that a hold overtook before it was begun.
#[derive(Debug)]
pub(super) struct Overtaken {
    /// It.
    pub job: Job,
}

/// What is left of a command that is in doubt.
enum Doubtful {
    /// A dose: it is settled before the next one.
    Dose(Box<(Job, Doubt)>),
    /// Anything else is settled beside other commands.
    Other(BoxFuture<'static, ()>),
}

/// One robot's worker.
pub(super) struct Worker {
    context: Context,
    cell: Arc<RobotCell>,
    messages: mpsc::Receiver<Message>,
    queue: VecDeque<Job>,
    current: Option<BoxFuture<'static, Option<Doubtful>>>,
    beside: FuturesUnordered<BoxFuture<'static, ()>>,
    doubt: Option<BoxFuture<'static, ()>>,
}

impl Worker {
    /// Of this robot.
    pub(super) fn new(
        context: Context,
        cell: Arc<RobotCell>,
        messages: mpsc::Receiver<Message>,
    ) -> Self {
        Self {
            context,
            cell,
            messages,
            queue: VecDeque::new(),
            current: None,
            beside: FuturesUnordered::new(),
            doubt: None,
        }
    }

    /// Runs until the agent stops and what runs has ended.
    pub(super) async fn run(mut self, open: Vec<Entry>) {
        let recovered = recover::sort(&self.context, &self.cell, open).await;
        self.beside.extend(recovered.others);
        self.doubt = recovered.dose.map(settle);
        let mut epoch = self.context.gate.epoch();
        let stop = self.context.stop.clone();
        loop {
            self.start_next();
            if stop.is_cancelled() && self.current.is_none() {
                // A dose in doubt, and a hold that does not show yet, are in the journal.
                return;
            }
            tokio::select! {
                biased;
                () = stop.cancelled(), if !stop.is_cancelled() => self.queue.clear(),
                changed = epoch.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = *epoch.borrow_and_update();
                    let runs_on = planted!("agent-old-session-runs");
                    self.queue.retain(|job| Some(job.epoch) == now || runs_on);
                }
                message = self.messages.recv(), if !stop.is_cancelled() => match message {
                    Some(Message::Order(job)) => self.take(*job),
                    None => return,
                },
                Some(()) = self.beside.next() => {}
                Some(()) = OptionFuture::from(self.doubt.as_mut()) => self.doubt = None,
                Some(doubtful) = OptionFuture::from(self.current.as_mut()) => {
                    self.current = None;
                    match doubtful {
                        Some(Doubtful::Dose(dose)) => self.doubt = Some(settle(*dose)),
                        Some(Doubtful::Other(settling)) => self.beside.push(settling),
                        None => {}
                    }
                }
            }
        }
    }

    /// Puts a command in its place: behind those of its feeder that come before it. A hold does not
    /// wait; it takes those before it with it.
    fn take(&mut self, job: Job) {
        if matches!(job.order.action, Action::Hold) {
            if let Some(control) = job.control() {
                control.hold_came(job.place());
            }
            let mut overtaken = Vec::new();
            let mut kept = VecDeque::with_capacity(self.queue.len());
            for other in self.queue.drain(..) {
                if other.feeder() == job.feeder() && other.place() < job.place() {
                    overtaken.push(Overtaken { job: other });
                } else {
                    kept.push_back(other);
                }
            }
            self.queue = kept;
            self.beside.push(Box::pin(hold::hold(job, overtaken)));
            return;
        }
        let later = |o: &Job| o.feeder() == job.feeder() && o.place() > job.place();
        let place = self.queue.iter().position(later).unwrap_or(self.queue.len());
        self.queue.insert(place, job);
    }

    fn start_next(&mut self) {
        if self.current.is_some() || self.context.stop.is_cancelled() {
            return;
        }
        if let Some(job) = self.queue.pop_front() {
            let settling = self.doubt.is_some();
            self.current = Some(Box::pin(run(job, settling)));
        }
    }
}

/// Runs one command to its end, or until it is in doubt.
async fn run(mut job: Job, settling: bool) -> Option<Doubtful> {
    if let Some(verdict) = job.too_late() {
        job.refuse(verdict).await;
        return None;
    }
    match job.order.action.clone() {
        Action::UpdateConfig { base, new, fields } => {
            config::update(&mut job, base, &new, &fields).await;
            None
        }
        Action::FeedNow { portion_mg } => {
            let doubt = dose::feed(&mut job, portion_mg, settling).await?;
            Some(Doubtful::Dose(Box::new((job, doubt))))
        }
        Action::Resume => {
            let doubted = hold::resume(&mut job).await;
            doubted.then(|| Doubtful::Other(Box::pin(hold::settle_resume(job))))
        }
        Action::ResetFault { fault_code } => {
            let doubted = fault::reset(&mut job, fault_code).await;
            doubted.then(|| Doubtful::Other(Box::pin(fault::settle(job, fault_code))))
        }
        // Holds do not queue.
        Action::Hold => None,
    }
}

/// Goes on settling a dose. One that was found open is reported as in doubt first, once.
fn settle((job, doubt): (Job, Doubt)) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let mut doubt = Some(doubt);
        while let Some(open) = doubt.take() {
            doubt = dose::settle(&job, open).await;
        }
    })
}
