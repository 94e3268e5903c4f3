//! The task that owns the journal's connection. It commits together what queued up while the last commit
//! was syncing: one fsync for all of it. If that fails, each is tried alone, so that a fault undoes only
//! its own work.

use std::fs::File;

use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, watch};

use super::known::Known;
use super::script::Script;
use super::{Change, Job, JournalError, Lazy, Reply, Steady, Unacked, apply, load};

/// More than this is written at once even if nothing else is.
const MAX_LAZY: usize = 256;
/// The most commits of one transaction.
const MAX_GROUP: usize = 64;
/// How often the steady clock is journaled. What passed since is not counted after the machine's
/// restart, which is the strict side.
const STAMP_MS: i64 = 1_000;
/// How often old commands are forgotten.
const PRUNE_MS: i64 = 3_600_000;

/// A commit that waits for its transaction.
type Waiting = (Vec<Change>, Reply<()>);

/// See the module.
pub(super) struct Owner {
    conn: SqliteConnection,
    known: Known,
    lazy: Vec<Lazy>,
    high_water: watch::Sender<i64>,
    steady: Steady,
    stamped_ms: Option<i64>,
    pruned_ms: Option<i64>,
    // Held for life: two agents on one journal would feed twice.
    _lock: File,
}

impl Owner {
    /// Over an open journal.
    pub(super) fn new(
        conn: SqliteConnection,
        known: Known,
        high_water: watch::Sender<i64>,
        steady: Steady,
        lock: File,
    ) -> Self {
        let lazy = Vec::new();
        Self {
            conn,
            known,
            lazy,
            high_water,
            steady,
            stamped_ms: None,
            pruned_ms: None,
            _lock: lock,
        }
    }

    /// Until it is closed, or nobody asks any more.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(first) = jobs.recv().await {
            let (mut group, mut lazy, mut asks, mut close) = (vec![], vec![], vec![], None);
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Commit(changes, reply) => group.push((changes, reply)),
                    Job::Lazily(late) => lazy.push(late),
                    Job::Close(done) => {
                        close = Some(done);
                        break;
                    }
                    ask => asks.push(ask),
                }
                let room = group.len() < MAX_GROUP && asks.len() < MAX_GROUP;
                next = if room { jobs.try_recv().ok() } else { None };
            }
            self.commit(group).await;
            // What was acknowledged after a commit was asked for is none of that transaction.
            self.lazy.append(&mut lazy);
            if self.lazy.len() >= MAX_LAZY {
                self.write_lazy().await;
            }
            // Read after the commit: who asks may have asked for it first.
            for ask in asks {
                self.answer(ask).await;
            }
            if let Some(done) = close {
                self.close().await;
                let _gone = done.send(());
                return;
            }
        }
    }

    /// Makes a group durable, then answers it.
    async fn commit(&mut self, group: Vec<Waiting>) {
        if group.len() > 1 {
            let parts = group.iter().map(|(changes, _)| changes.clone()).collect();
            match self.transact(parts).await {
                Ok(()) => {
                    for (_, reply) in group {
                        let _gone = reply.send(Ok(()));
                    }
                    return;
                }
                Err(e) => {
                    let commits = group.len();
                    tracing::warn!(error = %e, commits, "committed one by one");
                }
            }
        }
        for (changes, reply) in group {
            let _gone = reply.send(self.transact(vec![changes]).await);
        }
    }

    /// One transaction with what was left to be done, or nothing of it.
    async fn transact(&mut self, parts: Vec<Vec<Change>>) -> Result<(), JournalError> {
        let now = self.steady.now_ms();
        let mut high_water = *self.high_water.borrow();
        let prune = self.pruned_ms.is_none_or(|at| now - at >= PRUNE_MS);
        let stamp = self.stamped_ms.is_none_or(|at| now - at >= STAMP_MS);
        let last = parts.len().saturating_sub(1);
        for (i, changes) in parts.into_iter().enumerate() {
            let mut script = Script::default();
            if i == 0 {
                script.add("BEGIN IMMEDIATE");
                apply::lazy(&mut script, &self.lazy, now);
                if prune {
                    apply::prune(&mut script, now);
                }
            }
            for change in changes {
                if let Change::Command(entry) = &change {
                    self.known.add(&entry.order.command.to_string());
                }
                apply::change(&mut script, change, now, &mut high_water);
            }
            if i == last {
                if stamp {
                    apply::steady(&mut script, &self.steady, now);
                }
                script.add("COMMIT");
            }
            if let Err(e) = script.run(&mut self.conn).await {
                // Refused if it did not come to a transaction, or the failure ended it.
                let _none_open = sqlx::query("ROLLBACK").execute(&mut self.conn).await;
                return Err(e);
            }
        }
        self.lazy.clear();
        self.pruned_ms = if prune { Some(now) } else { self.pruned_ms };
        self.stamped_ms = if stamp { Some(now) } else { self.stamped_ms };
        self.high_water.send_if_modified(|h| std::mem::replace(h, high_water) != high_water);
        Ok(())
    }

    async fn write_lazy(&mut self) {
        if let Err(e) = self.transact(vec![Vec::new()]).await {
            tracing::error!(error = %e, "acknowledgements could not be journaled");
        }
    }

    async fn answer(&mut self, ask: Job) {
        match ask {
            Job::Lookup(name, reply) => {
                let found = if self.known.may_hold(&name) {
                    load::entry(&mut self.conn, &name).await
                } else {
                    Ok(None)
                };
                let _gone = reply.send(found);
            }
            Job::Unacked(reply) => {
                let _gone = reply.send(self.unacked().await);
            }
            Job::Records { after, max, reply } => {
                let _gone = reply.send(load::records(&mut self.conn, after, max).await);
            }
            Job::Oldest(reply) => {
                let _gone = reply.send(load::oldest_record(&mut self.conn).await);
            }
            Job::Commit(..) | Job::Lazily(_) | Job::Close(_) => {}
        }
    }

    /// Those that the server acknowledged a moment ago are left out, written or not.
    async fn unacked(&mut self) -> Result<Unacked, JournalError> {
        if !self.lazy.is_empty() {
            self.transact(vec![Vec::new()]).await?;
        }
        Ok(Unacked {
            entries: load::unacked(&mut self.conn).await?,
            anchor: load::anchor(&mut self.conn).await?,
        })
    }

    async fn close(mut self) {
        self.stamped_ms = None;
        if let Err(e) = self.transact(vec![Vec::new()]).await {
            tracing::error!(error = %e, "the journal's last write failed");
        }
        if let Err(e) = self.conn.close().await {
            tracing::error!(error = %e, "the journal did not close cleanly");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use futures_util::future::join_all;
    use pasamanos_proto::model::{Action, CommandName, CommandOrder, FeederId, RequestId};
    use tokio_util::task::TaskTracker;
    use uuid::Uuid;

    use super::super::{Change, Entry, Journal, Loaded, LooseMarks, Mark};
    use crate::clock::Clock;

    async fn open(dir: &std::path::Path) -> (Journal, Loaded) {
        Journal::open(dir, &Clock::system(), &TaskTracker::new()).await.unwrap()
    }

    /// A mark of the feeder; with `command` also the one command of these tests, as an open intent.
    fn changes(feeder: &FeederId, mg: u64, command: bool) -> Vec<Change> {
        let mark = Mark { total_mg: Some(mg), ..Mark::default() };
        let mut changes = vec![Change::Mark(feeder.clone(), mark)];
        let request = RequestId::from(Uuid::from_u128(7));
        let order = CommandOrder {
            command: CommandName::new("farm-1".parse().unwrap(), request),
            feeder: feeder.clone(),
            number: 1,
            body_hash: Action::Hold.body_hash(feeder),
            boot_id: "boot-1".into(),
            start_before_ms: 0,
            author: String::new(),
            note: pasamanos_proto::model::Note::default(),
            action: Action::Hold,
        };
        if command {
            changes.push(Change::Command(Box::new(Entry {
                order,
                robot: "robot-1".parse().unwrap(),
                epoch: 1,
                slot: None,
                report: None,
                settled: false,
                loose: false,
                marks: LooseMarks::default(),
            })));
        }
        changes
    }

    fn feeder(i: u64) -> FeederId {
        format!("feeder-{i:02}").parse().unwrap()
    }

    #[tokio::test]
    async fn p3_what_shares_a_commit_lasts_and_a_fault_undoes_only_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path()).await;
        // On one thread all of them are asked for before the owner looks at the first. The third and
        // the eleventh bear one name: a name that is there is never journaled again.
        let commits = (0..20_u64).map(|i| {
            let journal = journal.clone();
            async move { journal.commit(changes(&feeder(i), 100 + i, i == 3 || i == 11)).await }
        });
        let answers = join_all(commits).await;
        for (i, answer) in answers.iter().enumerate() {
            assert_eq!(answer.is_err(), i == 11, "{i}: {answer:?}");
        }
        journal.close().await;
        let (journal, loaded) = open(dir.path()).await;
        for i in 0..20 {
            let mark = loaded.feeders.get(&feeder(i)).and_then(|f| f.mark.total_mg);
            // The eleventh's mark was written before its command was refused.
            assert_eq!(mark, (i != 11).then_some(100 + i), "feeder {i}");
        }
        let [open] = &loaded.unsettled[..] else { panic!("{:?}", loaded.unsettled) };
        assert_eq!(open.order.feeder, feeder(3));
        journal.close().await;
    }

    #[tokio::test]
    async fn an_acknowledgement_is_of_the_outcome_that_it_names() {
        use pasamanos_proto::model::{CommandReport, CommandState, Reason};
        let dir = tempfile::tempdir().unwrap();
        let (journal, _) = open(dir.path()).await;
        journal.commit(changes(&feeder(1), 0, true)).await.unwrap();
        let order = journal.unacked().await.unwrap().entries[0].order.clone();
        let outcome = |state| {
            let mut report = crate::executor::progress(&order, state, 1);
            report.reason = Reason::Unspecified;
            let report: Box<CommandReport> = Box::new(report);
            vec![Change::Outcome { report, settled: true, loose: false }]
        };
        journal.commit(outcome(CommandState::Uncertain)).await.unwrap();
        journal.commit(outcome(CommandState::Applied)).await.unwrap();
        // Late: of the doubt, not of what settled it.
        journal.acked(order.command.clone(), CommandState::Uncertain, None).await;
        assert_eq!(journal.unacked().await.unwrap().entries.len(), 1);
        journal.acked(order.command.clone(), CommandState::Applied, None).await;
        assert_eq!(journal.unacked().await.unwrap().entries.len(), 0);
        journal.close().await;
    }
}
