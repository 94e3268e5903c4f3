//! The queue before the writer: bounded, first come first served, with a way out for a caller that
//! gives up before its turn.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::error::Cause;
use super::ticket::{InFlight, Ticket, WithdrawOnDrop};
use super::tx::{Tx, Write};
use crate::domain::ports::StoreError;

/// Why a submitted write has no answer of its own.
pub enum Lost {
    /// It never ran and never will.
    NotTaken,
    /// It may have been committed.
    Unknown,
    /// The database failed; nothing of it was committed.
    Failed(anyhow::Error),
}

type Reply<W> = Result<Result<<W as Write>::Out, <W as Write>::Err>, Lost>;

/// A queued write, its type forgotten.
#[async_trait]
pub trait Job: Send {
    /// Runs it and keeps its answer.
    async fn run(&mut self, tx: &mut Tx<'_>) -> Ran;
    /// Gives the answer that it kept: what it did is durable, or it did nothing.
    fn answer(self: Box<Self>);
    /// Answers that it came to nothing, or that nobody knows.
    fn lost(self: Box<Self>, lost: Lost);
}

/// How a run went.
pub enum Ran {
    /// It may be committed: it did its work, or refused before it wrote.
    Clean,
    /// It wrote, then refused or failed.
    Dirty,
    /// The database cannot be asked.
    DatabaseGone(anyhow::Error),
}

struct Queued<W: Write> {
    write: W,
    done: Option<Result<W::Out, W::Err>>,
    answer: oneshot::Sender<Reply<W>>,
}

#[async_trait]
impl<W: Write> Job for Queued<W> {
    async fn run(&mut self, tx: &mut Tx<'_>) -> Ran {
        let result = self.write.run(tx).await;
        let ran = match &result {
            Ok(_) => Ran::Clean,
            Err(e) => match e.store() {
                Some(StoreError::Unavailable(cause)) => {
                    Ran::DatabaseGone(anyhow::anyhow!("{cause:#}"))
                }
                _ if tx.wrote() => Ran::Dirty,
                _ => Ran::Clean,
            },
        };
        self.done = Some(result);
        ran
    }

    fn answer(self: Box<Self>) {
        let reply = self.done.ok_or(Lost::NotTaken);
        // A caller that went away learns of it by name.
        let _ = self.answer.send(reply);
    }

    fn lost(self: Box<Self>, lost: Lost) {
        let _ = self.answer.send(Err(lost));
    }
}

/// A job and its place in the queue.
pub struct Item {
    /// Who may still withdraw it.
    pub ticket: Arc<Ticket>,
    /// What to do.
    pub job: Box<dyn Job>,
}

/// How long a caller waits.
#[derive(Clone, Copy)]
pub struct Patience {
    /// For the writer to take it; then it is withdrawn.
    pub taken: Duration,
    /// In all, for the answer.
    pub answered: Duration,
}

/// The queue's end for callers.
#[derive(Clone)]
pub struct Queue(mpsc::Sender<Item>);

impl Queue {
    /// A queue of so many places.
    pub fn new(places: usize) -> (Self, mpsc::Receiver<Item>) {
        let (tx, rx) = mpsc::channel(places);
        (Self(tx), rx)
    }

    /// Queues a write and waits for its answer. If the caller goes away the write runs all the
    /// same, unless it bears names: then it is withdrawn if it was not taken.
    pub async fn submit<W: Write>(
        &self,
        write: W,
        names: Option<InFlight>,
        patience: Patience,
    ) -> Reply<W> {
        let start = Instant::now();
        let (taken_by, answered_by) = (start + patience.taken, start + patience.answered);
        let may_withdraw = names.is_some();
        let (answer, mut answered) = oneshot::channel();
        let Ok(Ok(place)) = timeout_at(taken_by, self.0.reserve()).await else {
            return Err(Lost::NotTaken);
        };
        let ticket = Ticket::new(taken_by, names);
        let _guard = may_withdraw.then(|| WithdrawOnDrop(Arc::clone(&ticket)));
        place.send(Item {
            ticket: Arc::clone(&ticket),
            job: Box::new(Queued { write, done: None, answer }),
        });
        if let Ok(reply) = timeout_at(taken_by, &mut answered).await {
            return reply.unwrap_or(Err(Lost::NotTaken));
        }
        if ticket.withdraw() {
            return Err(Lost::NotTaken);
        }
        match timeout_at(answered_by, answered).await {
            Ok(reply) => reply.unwrap_or(Err(Lost::Unknown)),
            Err(_) => Err(Lost::Unknown),
        }
    }
}
