//! Sessions: their opening, which settles what older ones left, and their end.

use std::collections::BTreeMap;

use async_trait::async_trait;
use pasamanos_proto::model::{
    Action, ActionKind, AgentName, CommandName, CommandReport, CommandState, FeederId, Hello,
    ObservedConfig, Reason,
};
use sqlx::Row as _;

use super::driver::for_update;
use super::feeders::{self, Whose};
use super::settle::{self, Outcome, doubt, settle_reported};
use super::tx::{Tx, Write, broken};
use super::{adopt, audit, read, records, rows};
use crate::domain::command::{Transition, transition};
use crate::domain::ports::{
    OpenError, OpenSession, SessionOpened, StoreError, StoredCommand, StoredFeeder,
};
use crate::domain::settle::{
    Known, Settlement, SlotEvidence, at_hello, database_restored, journal_reaches, next_epoch,
    robot,
};

/// Opens a session.
pub struct Open(pub OpenSession);

#[async_trait]
impl Write for Open {
    type Out = SessionOpened;
    type Err = OpenError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<SessionOpened, OpenError> {
        let (hello, now_ms) = (&self.0.hello, self.0.now_ms);
        let agent = &hello.agent;
        let (known, time_zone) = known(tx, hello).await?.ok_or(OpenError::UnknownAgent)?;
        let epoch = next_epoch(known, hello).ok_or(OpenError::EpochJump)?;
        let mut alarms = alarms(known, hello);
        let mut have = feeders::take_inventory(tx, agent, &hello.inventory, &mut alarms).await?;
        let mut settled = settle_older(tx, known, hello, &mut have, now_ms).await?;
        let adopted =
            adopt::adopt_unknown(tx, hello, &settled, &mut have, &mut alarms, now_ms).await?;
        settled.extend(adopted);
        let known_before = settled_before(tx, hello, &settled, &mut alarms).await?;
        let restored = database_restored(known, hello);
        let whose = if restored { Whose::Unknown } else { Whose::Farm };
        take_configs(tx, hello, &mut have, whose, now_ms).await?;
        let records_through =
            records::close_gap(tx, hello, known.records_through, &mut alarms, now_ms).await?;
        let update = sqlx::query(
            "UPDATE agents SET epoch = $3, seen_ms = $4, version = $5, incarnation = $6,
                    incarnation_since = $7
             WHERE farm = $1 AND agent = $2",
        )
        .bind(agent.farm.to_string())
        .bind(agent.agent.to_string())
        .bind(epoch)
        .bind(now_ms)
        .bind(hello.agent_version.clone())
        .bind(hello.journal.incarnation.clone())
        .bind(known.incarnation_since);
        tx.execute(update).await?;
        Ok(SessionOpened {
            epoch,
            time_zone,
            records_through,
            settled,
            known: known_before,
            resolved: resolved(tx, agent).await?,
            anchor: tx.anchor(&agent.farm).await?,
            tell_again: restored,
            alarms,
        })
    }
}

/// What the database knows of the agent, and its farm's zone; `None` if it was never added.
async fn known(tx: &mut Tx<'_>, hello: &Hello) -> Result<Option<(Known, String)>, StoreError> {
    let agent = &hello.agent;
    let row = sqlx::query(concat!(
        "SELECT a.epoch, a.command_epoch, a.incarnation, a.incarnation_since, f.time_zone
         FROM agents a
         JOIN farms f ON f.farm = a.farm
         WHERE a.farm = $1 AND a.agent = $2",
        for_update!()
    ))
    .bind(agent.farm.to_string())
    .bind(agent.agent.to_string())
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = row else { return Ok(None) };
    let incarnation: &str = row.try_get("incarnation")?;
    let epoch: i64 = row.try_get("epoch")?;
    let known = Known {
        epoch,
        incarnation_since: if incarnation == hello.journal.incarnation {
            row.try_get("incarnation_since")?
        } else {
            epoch.max(hello.journal.last_epoch).saturating_add(1)
        },
        highest_command_epoch: row.try_get("command_epoch")?,
        records_through: records::through(tx.conn(), agent, &hello.journal.incarnation).await?,
        holds_anchor: match &hello.journal.anchor {
            Some(anchor) => audit::holds(tx.conn(), &agent.farm, anchor).await?,
            None => true,
        },
    };
    Ok(Some((known, row.try_get("time_zone")?)))
}

fn alarms(known: Known, hello: &Hello) -> Vec<String> {
    let agent = &hello.agent;
    let mut alarms = Vec::new();
    if database_restored(known, hello) {
        alarms.push(format!(
            "the database was put back: {agent} has seen epoch {}, the database {}; place {} of the \
             audit chain is {}; the agent forgot records to {}, the history has {}",
            hello.journal.last_epoch,
            known.epoch,
            hello.journal.anchor.map_or(0, |a| a.sequence),
            if known.holds_anchor { "here" } else { "not here" },
            hello.journal.records_forgotten(),
            known.records_through,
        ));
    }
    if !journal_reaches(known, hello) {
        alarms.push(format!("{agent} has a journal that is not whole"));
    }
    for r in &hello.inventory.robots {
        if robot(hello, &r.id) == SlotEvidence::Differs {
            alarms.push(format!("{agent}: journal and PLC of robot {} differ", r.id));
        }
    }
    alarms
}

/// Settles every command of older epochs that has no true end.
async fn settle_older(
    tx: &mut Tx<'_>,
    known: Known,
    hello: &Hello,
    have: &mut BTreeMap<FeederId, StoredFeeder>,
    now_ms: i64,
) -> Result<Vec<StoredCommand>, StoreError> {
    let mut settled = Vec::new();
    for mut command in read::open_commands(tx.conn(), &hello.agent).await? {
        match at_hello(known, hello, &command) {
            Settlement::Listed(report) => {
                let feeder = read::feeder(tx.conn(), &hello.agent.farm, &command.feeder).await?;
                let mut feeder =
                    feeder.ok_or_else(|| broken(format_args!("{} has no feeder", command.name)))?;
                settle_reported(tx, &mut command, &mut feeder, &report, now_ms).await?;
                have.insert(feeder.id.clone(), feeder);
            }
            Settlement::Unlisted(state, reason) => {
                let outcome = Outcome::concluded(state, reason);
                settle::settle(tx, &mut command, outcome, now_ms).await?;
            }
            Settlement::InDoubt => continue,
        }
        settled.push(command);
    }
    Ok(settled)
}

/// What the hello lists and the database had settled before: nothing changes, the agent may forget
/// it. What the database has otherwise is alarmed.
async fn settled_before(
    tx: &mut Tx<'_>,
    hello: &Hello,
    settled: &[StoredCommand],
    alarms: &mut Vec<String>,
) -> Result<Vec<StoredCommand>, StoreError> {
    let mut before = Vec::new();
    for report in hello.commands.iter().filter(|r| r.state.is_terminal()) {
        if settled.iter().any(|c| c.name == report.command) {
            continue;
        }
        let agent = &hello.agent;
        // What is not here, or another agent's, was alarmed when it was not taken in.
        if let Some((command, ..)) = read::command_of(tx.conn(), agent, &report.command).await? {
            if let Some(why) = conflict(&command, report) {
                alarms.push(format!("{agent}, {}: {why}", command.name));
            }
            before.push(command);
        }
    }
    Ok(before)
}

fn conflict(command: &StoredCommand, report: &CommandReport) -> Option<&'static str> {
    if report.body_hash != command.action.body_hash(&command.feeder) {
        return Some("the agent ran another body");
    }
    (transition(command.state, report.state) == Transition::Contradiction)
        .then_some("the agent's outcome contradicts the one that is stored")
}

/// Makes versions of what the PLCs were found to run, except where a config command is in doubt that
/// set some of it and not all: its evidence will tell whose the values are.
async fn take_configs(
    tx: &mut Tx<'_>,
    hello: &Hello,
    have: &mut BTreeMap<FeederId, StoredFeeder>,
    whose: Whose,
    now_ms: i64,
) -> Result<(), StoreError> {
    for found in &hello.inventory.feeders {
        let (Some(config), Some(feeder)) = (&found.config, have.get_mut(&found.id)) else {
            continue;
        };
        // `have` was read before the commands were settled: ask again where there was one.
        if let Some(request) = feeder.pending {
            let name = CommandName::new(hello.agent.farm.clone(), request);
            let command = read::command(tx.conn(), &name).await?;
            if command.is_some_and(|c| !known_end(c.state) && shows_in_part(&c.action, config)) {
                continue;
            }
            match read::feeder(tx.conn(), &hello.agent.farm, &found.id).await? {
                Some(now) => *feeder = now,
                None => continue,
            }
        }
        let whose = if found.memory_lost { Whose::MemoryLost } else { whose };
        feeders::observe(tx, &hello.agent.farm, feeder, config, whose, now_ms).await?;
    }
    Ok(())
}

fn known_end(state: CommandState) -> bool {
    state.is_terminal() && state != CommandState::Uncertain
}

/// Whether some of what this command set shows, and not all of it.
fn shows_in_part(action: &Action, config: &ObservedConfig) -> bool {
    let Action::UpdateConfig { base, new, .. } = action else { return false };
    let base = ObservedConfig::from(base.clone());
    let (Some(base), Some(config)) = (base.valid(), config.valid()) else { return false };
    let moved = base.diff(config);
    !moved.is_empty() && config != new && base.merged(new, &moved) == *config
}

/// Persons' settlements of doses that are still in doubt: the agent may hold a lock for each. The
/// newest, as far as one hello is answered.
async fn resolved(tx: &mut Tx<'_>, agent: &AgentName) -> Result<Vec<StoredCommand>, StoreError> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        rows::command_columns!(),
        " FROM commands c
          WHERE farm = $1 AND agent = $2 AND state IN ('ACCEPTED', 'UNCERTAIN')
            AND state = 'UNCERTAIN' AND resolved_ms IS NOT NULL
          ORDER BY ord DESC LIMIT 256"
    ))
    .bind(agent.farm.to_string())
    .bind(agent.agent.to_string())
    .fetch_all(tx.conn())
    .await?;
    let commands: Vec<_> = rows.iter().map(rows::command).collect::<Result<_, _>>()?;
    Ok(commands.into_iter().filter(|c| c.action.kind() == ActionKind::FeedNow).rev().collect())
}

/// Ends a session.
pub struct Close {
    /// Whose.
    pub agent: AgentName,
    /// Which.
    pub epoch: i64,
    /// Wall clock.
    pub now_ms: i64,
}

#[async_trait]
impl Write for Close {
    type Out = Vec<StoredCommand>;
    type Err = StoreError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<Vec<StoredCommand>, StoreError> {
        let open = read::outbox(tx.conn(), &self.agent, self.epoch, i64::MIN).await?;
        let mut ended = Vec::new();
        for command in open {
            ended.extend(doubt(tx, command, Reason::AgentLost, self.now_ms).await?);
        }
        let update = sqlx::query(
            "UPDATE agents SET seen_ms = $4 WHERE farm = $1 AND agent = $2 AND epoch = $3",
        )
        .bind(self.agent.farm.to_string())
        .bind(self.agent.agent.to_string())
        .bind(self.epoch)
        .bind(self.now_ms);
        tx.execute(update).await?;
        Ok(ended)
    }
}

/// Ends every session that a dead process left.
pub struct CloseAll {
    /// Wall clock.
    pub now_ms: i64,
}

#[async_trait]
impl Write for CloseAll {
    type Out = u64;
    type Err = StoreError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<u64, StoreError> {
        let mut ended = 0;
        for command in read::endless_commands(tx.conn()).await? {
            doubt(tx, command, Reason::AgentLost, self.now_ms).await?;
            ended += 1;
        }
        Ok(ended)
    }
}

/// Ends commands without an outcome as UNCERTAIN.
pub struct Doubt {
    /// Which.
    pub commands: Vec<CommandName>,
    /// Why.
    pub reason: Reason,
    /// Wall clock.
    pub now_ms: i64,
}

#[async_trait]
impl Write for Doubt {
    type Out = Vec<StoredCommand>;
    type Err = StoreError;

    async fn run(&mut self, tx: &mut Tx<'_>) -> Result<Vec<StoredCommand>, StoreError> {
        let mut ended = Vec::new();
        for name in &self.commands {
            match read::command(tx.conn(), name).await? {
                Some(command) if command.state == CommandState::Accepted => {
                    ended.extend(doubt(tx, command, self.reason, self.now_ms).await?);
                }
                _ => {}
            }
        }
        Ok(ended)
    }
}
