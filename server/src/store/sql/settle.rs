//! How a command gets its end: one statement, one audit record, whoever brings it.

use std::collections::BTreeMap;

use pasamanos_faults::planted;
use pasamanos_proto::model::{ActionKind, Basis, CommandReport, CommandState, Reason, Verdict};
use serde_json::json;

use super::audit::Entry;
use super::feeders::{self, Whose};
use super::tx::{Tx, broken};
use super::words::Word;
use crate::domain::ports::{StoreError, StoredCommand, StoredFeeder};

/// An end, or the doubt.
pub struct Outcome {
    state: CommandState,
    reason: Reason,
    metadata: BTreeMap<String, String>,
    detail: String,
    dispensed: Option<(i32, Basis)>,
    /// Who brings it, for the audit.
    actor: String,
    by_server: bool,
}

impl Outcome {
    /// As an agent reports it.
    pub fn reported(report: &CommandReport, command: &StoredCommand) -> Self {
        Self {
            state: report.state,
            reason: report.reason,
            metadata: report.metadata.clone(),
            detail: report.detail.clone(),
            dispensed: report.dispensed,
            actor: format!("{}/agents/{}", command.name.farm.name(), command.agent),
            by_server: false,
        }
    }

    /// As the server concludes it from what is missing.
    pub fn concluded(state: CommandState, reason: Reason) -> Self {
        Self {
            state,
            reason,
            metadata: BTreeMap::new(),
            detail: String::new(),
            dispensed: None,
            actor: "server".into(),
            by_server: true,
        }
    }
}

/// Gives a command its end. The caller has asked [`crate::domain::command::transition`].
pub async fn settle(
    tx: &mut Tx<'_>,
    command: &mut StoredCommand,
    outcome: Outcome,
    now_ms: i64,
) -> Result<(), StoreError> {
    let before = command.state;
    command.state = outcome.state;
    command.reason = outcome.reason;
    command.metadata = outcome.metadata;
    command.detail = outcome.detail;
    command.dispensed = outcome.dispensed;
    command.doubt_by_server = outcome.by_server && command.state == CommandState::Uncertain;
    command.settled_ms = Some(now_ms);
    let metadata = if command.metadata.is_empty() {
        String::new()
    } else {
        serde_json::to_string(&command.metadata).map_err(broken)?
    };
    let update = sqlx::query(
        "UPDATE commands SET state = $3, reason = $4, metadata = $5, detail = $6,
                dispensed_mg = $7, basis = $8, settled_ms = $9, doubt_by_server = $11
         WHERE farm = $1 AND request_id = $2 AND state = $10",
    )
    .bind(command.name.farm.to_string())
    .bind(command.name.request.to_string())
    .bind(command.state.word())
    .bind(command.reason.name())
    .bind(metadata)
    .bind(command.detail.clone())
    .bind(command.dispensed.map(|(mg, _)| i64::from(mg)))
    .bind(command.dispensed.map(|(_, basis)| basis.word()))
    .bind(now_ms)
    .bind(before.word())
    .bind(command.doubt_by_server);
    if tx.execute(update).await? != 1 {
        return Err(broken(format_args!("{} is not {} any more", command.name, before.word())));
    }
    if contradicted(command.resolution.as_ref().map(|r| r.what.verdict), command.state) {
        tracing::error!(
            command = %command.name, state = command.state.word(),
            "alarm: the evidence contradicts what a person said"
        );
    }
    let body = json!({
        "from": before.word(),
        "to": command.state.word(),
        "reason": command.reason.name(),
        "dispensed_mg": command.dispensed.map(|(mg, _)| mg),
        "basis": command.dispensed.map(|(_, basis)| basis.word()),
    });
    let entry = Entry {
        kind: "settled",
        subject: command.name.to_string(),
        actor: outcome.actor,
        body,
        time_ms: now_ms,
    };
    tx.audit(&command.name.farm, entry).await
}

/// Whether a person's settlement and the evidence differ.
fn contradicted(said: Option<Verdict>, evidence: CommandState) -> bool {
    use CommandState::{Applied, Expired, Partial, Rejected};
    matches!(
        (said, evidence),
        (Some(Verdict::Fed), Rejected | Expired) | (Some(Verdict::NotFed), Applied | Partial)
    )
}

/// Ends a command as UNCERTAIN if it has no end.
pub async fn doubt(
    tx: &mut Tx<'_>,
    mut command: StoredCommand,
    reason: Reason,
    now_ms: i64,
) -> Result<Option<StoredCommand>, StoreError> {
    if command.state.is_terminal() {
        return Ok(None);
    }
    let mut end = CommandState::Uncertain;
    if planted!("server-silence-is-rejected") {
        end = CommandState::Rejected;
    }
    settle(tx, &mut command, Outcome::concluded(end, reason), now_ms).await?;
    Ok(Some(command))
}

/// Applies a report, its config included, to a command and its feeder as they were read.
pub async fn settle_reported(
    tx: &mut Tx<'_>,
    command: &mut StoredCommand,
    feeder: &mut StoredFeeder,
    report: &CommandReport,
    now_ms: i64,
) -> Result<(), StoreError> {
    settle(tx, command, Outcome::reported(report, command), now_ms).await?;
    let (farm, request) = (&command.name.farm, command.name.request);
    // A feeder has one config command that is not settled: this one, if it was this one.
    if feeder.pending == Some(request) && report.state != CommandState::Uncertain {
        feeder.pending = None;
    }
    let is_config = command.action.kind() == ActionKind::UpdateConfig;
    // While a config command runs, only its own outcome says what the PLC came to.
    let (Some(config), true) = (&report.config, is_config || feeder.pending.is_none()) else {
        return Ok(());
    };
    // A mixture of old and new is the command's too: nobody at the farm set it.
    let own = report.state == CommandState::Applied || report.reason == Reason::ConfigMixed;
    let whose = match (is_config && own, report.memory_lost) {
        (true, _) => Whose::Command(request),
        (false, true) => Whose::MemoryLost,
        (false, false) => Whose::Farm,
    };
    feeders::observe(tx, farm, feeder, config, whose, now_ms).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use CommandState::{Applied, Expired, Partial, Rejected, Uncertain};

    #[test]
    fn evidence_against_what_a_person_said_is_a_contradiction() {
        for (said, against) in
            [(Verdict::Fed, [Rejected, Expired]), (Verdict::NotFed, [Applied, Partial])]
        {
            for state in [Applied, Partial, Rejected, Expired, Uncertain] {
                assert_eq!(contradicted(Some(said), state), against.contains(&state), "{state:?}");
                assert!(!contradicted(None, state));
            }
        }
    }
}
