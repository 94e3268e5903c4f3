//! What a hello settles: the end of every command of older epochs, decided from what the journal
//! lists and from whether the journal is whole.

use pasamanos_faults::planted;
use pasamanos_proto::model::{CommandReport, CommandState, Hello, Reason, RobotId};

use super::command::{Transition, transition};
use super::ports::StoredCommand;

/// What the database knows of an agent when its hello arrives.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// The epoch in the database before this session.
    pub epoch: i64,
    /// The highest epoch under which a command of this agent was accepted; 0 if none.
    pub highest_command_epoch: i64,
    /// The highest record sequence of this incarnation; 0 if none.
    pub records_through: i64,
    /// The first epoch of the journal's incarnation; commands of older epochs were another's.
    pub incarnation_since: i64,
    /// Whether the farm's audit chain holds the journal's anchor.
    pub holds_anchor: bool,
}

/// The largest believable jump from the database's epoch to the journal's.
pub const MAX_EPOCH_JUMP: i64 = 1_000_000;

/// The epoch of a new session, or `None` if the journal's is implausible.
#[must_use]
pub fn next_epoch(known: Known, hello: &Hello) -> Option<i64> {
    if planted!("server-epoch-from-database-only") {
        return known.epoch.checked_add(1);
    }
    let journal = hello.journal.last_epoch;
    (journal.saturating_sub(known.epoch) <= MAX_EPOCH_JUMP)
        .then(|| known.epoch.max(journal).checked_add(1))
        .flatten()
}

/// Whether the database was put back: the agent remembers of it what it does not hold. Either a later
/// epoch; or a place in its audit chain, told with every acknowledgement; or records, which an agent
/// forgets only when they were acknowledged.
///
/// The epoch alone does not show a copy that was taken while the agent's last session was open.
#[must_use]
pub fn database_restored(known: Known, hello: &Hello) -> bool {
    hello.journal.last_epoch > known.epoch
        || !known.holds_anchor
        || hello.journal.records_forgotten() > known.records_through
}

/// Whether the journal reaches as far as the server does: (i) its epoch, (ii) its records. The
/// third part, that every slot agrees, is asked per robot ([`robot`]).
#[must_use]
pub fn journal_reaches(known: Known, hello: &Hello) -> bool {
    hello.journal.last_epoch >= known.highest_command_epoch
        && hello.journal.record_high_water >= known.records_through
}

/// What a robot's slot says of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotEvidence {
    /// Journal and PLC agree, or there is nothing to compare.
    Agrees,
    /// They differ: the journal does not know all that the PLC did.
    Differs,
    /// The PLC cannot be read: nothing about its feeders is settled yet.
    Unreadable,
}

/// The evidence of one robot's slot.
#[must_use]
pub fn robot(hello: &Hello, robot: &RobotId) -> SlotEvidence {
    match hello.journal.slots.iter().find(|s| s.robot == *robot) {
        Some(s) if !s.readable => SlotEvidence::Unreadable,
        Some(s) if s.agrees() => SlotEvidence::Agrees,
        Some(_) => SlotEvidence::Differs,
        None => SlotEvidence::Unreadable,
    }
}

/// What becomes of one command of an older epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Settlement {
    /// As the journal says.
    Listed(Box<CommandReport>),
    /// By the server, from what the journal does not hold.
    Unlisted(CommandState, Reason),
    /// Stays in doubt; nothing is written.
    InDoubt,
}

/// Decides what becomes of a command without a true end: not terminal, or UNCERTAIN.
#[must_use]
pub fn at_hello(known: Known, hello: &Hello, command: &StoredCommand) -> Settlement {
    // What absence may still decide: no end yet, or the server's own doubt from silence.
    let open = match command.state {
        CommandState::Uncertain => command.doubt_by_server && command.reason == Reason::AgentLost,
        state => !state.is_terminal(),
    };
    let doubt = |reason| match (command.state, open) {
        (CommandState::Uncertain, _) if command.reason == reason => Settlement::InDoubt,
        (_, true) => Settlement::Unlisted(CommandState::Uncertain, reason),
        (_, false) => Settlement::InDoubt,
    };
    let listed = hello.commands.iter().find(|r| r.command == command.name);
    if let Some(report) = listed {
        if report.body_hash != command.action.body_hash(&command.feeder) {
            return doubt(Reason::JournalNotWhole);
        }
        return match transition(command.state, report.state) {
            Transition::Apply => Settlement::Listed(Box::new(report.clone())),
            Transition::Refine if command.doubt_by_server => {
                Settlement::Listed(Box::new(report.clone()))
            }
            // An open intent: the agent fences it and tells.
            _ if !report.state.is_terminal() => doubt(Reason::AgentLost),
            _ => Settlement::InDoubt,
        };
    }
    // Asked first: a journal or a database that was put back is found out at the first hello, and what
    // the journal does not hold stays marked, however whole it looks at the next. An agent that keeps
    // no anchor may have forgotten what this database never heard.
    let of_this_journal = command.epoch >= known.incarnation_since;
    if planted!("server-absence-is-proof") && open {
        return Settlement::Unlisted(CommandState::Expired, Reason::Unspecified);
    }
    if database_restored(known, hello)
        || hello.journal.anchor.is_none()
        || !journal_reaches(known, hello)
        || !of_this_journal
    {
        return doubt(Reason::JournalNotWhole);
    }
    match robot(hello, &command.robot) {
        SlotEvidence::Unreadable => doubt(Reason::AgentLost),
        SlotEvidence::Differs => doubt(Reason::JournalNotWhole),
        SlotEvidence::Agrees if open => {
            Settlement::Unlisted(CommandState::Expired, Reason::Unspecified)
        }
        SlotEvidence::Agrees => Settlement::InDoubt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ports::StoredCommand;
    use pasamanos_proto::model::{
        Action, AuditAnchor, BodyHash, Inventory, JournalState, RobotSlot,
    };

    const KNOWN: Known = Known {
        epoch: 5,
        highest_command_epoch: 5,
        records_through: 7,
        incarnation_since: 2,
        holds_anchor: true,
    };

    fn command(state: CommandState, reason: Reason, by_server: bool) -> StoredCommand {
        let name = "farms/norte/commands/0191d7a2-7c4e-7b1a-9f3e-2b8f6d0c5a11";
        StoredCommand {
            name: name.parse().expect("name"),
            feeder: "feeder-1".parse().expect("feeder"),
            robot: "robot-1".parse().expect("robot"),
            agent: "agent-1".parse().expect("agent"),
            epoch: 5,
            order: 1,
            number: 1,
            action: Action::FeedNow { portion_mg: 100 },
            request_hash: BodyHash::of(b""),
            start_before: (String::new(), 0),
            state,
            reason,
            metadata: std::collections::BTreeMap::new(),
            detail: String::new(),
            author: String::new(),
            note: String::new(),
            created_ms: 0,
            doubt_by_server: by_server,
            settled_ms: None,
            dispensed: None,
            resolution: None,
        }
    }

    /// A hello of a whole journal that lists nothing.
    fn hello() -> Hello {
        Hello {
            protocol_version: 1,
            agent: "farms/norte/agents/agent-1".parse().expect("agent"),
            agent_version: String::new(),
            journal: JournalState {
                incarnation: "a".into(),
                last_epoch: 5,
                record_high_water: 7,
                oldest_record: 1,
                slots: vec![RobotSlot {
                    robot: "robot-1".parse().expect("robot"),
                    readable: true,
                    sequenced: true,
                    plc: (9, 4),
                    journal: (9, 4),
                }],
                anchor: Some(AuditAnchor { sequence: 40, hash: [7; 32] }),
            },
            inventory: Inventory::default(),
            commands: Vec::new(),
            orders: Vec::new(),
        }
    }

    const EXPIRED: Settlement = Settlement::Unlisted(CommandState::Expired, Reason::Unspecified);
    const NOT_WHOLE: Settlement =
        Settlement::Unlisted(CommandState::Uncertain, Reason::JournalNotWhole);

    #[test]
    fn what_a_whole_journal_does_not_hold_is_expired() {
        let open = command(CommandState::Accepted, Reason::Unspecified, false);
        assert_eq!(at_hello(KNOWN, &hello(), &open), EXPIRED);
        let silent = command(CommandState::Uncertain, Reason::AgentLost, true);
        assert_eq!(at_hello(KNOWN, &hello(), &silent), EXPIRED);
    }

    #[test]
    fn an_agents_own_doubt_is_never_expired_by_absence() {
        for reason in [Reason::PlcUnreachable, Reason::AgentLost, Reason::ConfigMixed] {
            let doubted = command(CommandState::Uncertain, reason, false);
            assert_eq!(at_hello(KNOWN, &hello(), &doubted), Settlement::InDoubt, "{reason:?}");
        }
    }

    #[test]
    fn a_journal_that_was_put_back_stays_marked_at_its_second_hello() {
        let silent = command(CommandState::Uncertain, Reason::AgentLost, true);
        let mut first = hello();
        first.journal.last_epoch = 3;
        assert_eq!(at_hello(KNOWN, &first, &silent), NOT_WHOLE);
        // The session opened and the journal caught up: it looks whole now.
        let marked = command(CommandState::Uncertain, Reason::JournalNotWhole, true);
        assert_eq!(at_hello(KNOWN, &hello(), &marked), Settlement::InDoubt);
    }

    #[test]
    fn a_journal_made_anew_decides_nothing_about_older_epochs() {
        let open = command(CommandState::Accepted, Reason::Unspecified, false);
        let anew = Known { incarnation_since: 6, ..KNOWN };
        assert_eq!(at_hello(anew, &hello(), &open), NOT_WHOLE);
    }

    #[test]
    fn a_slot_that_differs_or_is_unreadable_decides_nothing() {
        let open = command(CommandState::Accepted, Reason::Unspecified, false);
        let mut differs = hello();
        differs.journal.slots[0].plc = (9, 5);
        assert_eq!(at_hello(KNOWN, &differs, &open), NOT_WHOLE);
        let mut unreadable = hello();
        unreadable.journal.slots[0].readable = false;
        let lost = Settlement::Unlisted(CommandState::Uncertain, Reason::AgentLost);
        assert_eq!(at_hello(KNOWN, &unreadable, &open), lost);
    }

    #[test]
    fn a_database_that_was_put_back_resends_nothing() {
        let open = command(CommandState::Accepted, Reason::Unspecified, false);
        let mut later = hello();
        later.journal.last_epoch = 8;
        assert!(database_restored(KNOWN, &later));
        assert_eq!(at_hello(KNOWN, &later, &open), NOT_WHOLE);
        assert_eq!(next_epoch(KNOWN, &later), Some(9));
        later.journal.last_epoch = 5 + MAX_EPOCH_JUMP + 1;
        assert_eq!(next_epoch(KNOWN, &later), None);
    }

    /// RULES 3.6: each condition alone makes absence prove nothing.
    #[test]
    fn records_that_the_journal_does_not_have_prove_that_it_is_behind() {
        let open = command(CommandState::Accepted, Reason::Unspecified, false);
        let mut behind = hello();
        behind.journal.record_high_water = 6;
        assert!(!journal_reaches(KNOWN, &behind) && !database_restored(KNOWN, &behind));
        assert_eq!(at_hello(KNOWN, &behind, &open), NOT_WHOLE);
        behind.journal.record_high_water = 7;
        assert_eq!(at_hello(KNOWN, &behind, &open), EXPIRED);
    }

    #[test]
    fn a_database_put_back_within_one_session_shows_by_what_it_acknowledged() {
        let open = command(CommandState::Accepted, Reason::Unspecified, false);
        // The same epoch on both sides, and the chain does not hold what the agent was told.
        let without = Known { holds_anchor: false, ..KNOWN };
        assert!(database_restored(without, &hello()));
        assert_eq!(at_hello(without, &hello(), &open), NOT_WHOLE);
        // Records were acknowledged, and forgotten by the journal, which are not here.
        let mut forgot = hello();
        forgot.journal.record_high_water = 9;
        forgot.journal.oldest_record = 8;
        assert_eq!(at_hello(KNOWN, &forgot, &open), EXPIRED, "8 and 9 are still to come");
        forgot.journal.oldest_record = 9;
        assert!(database_restored(KNOWN, &forgot));
        assert_eq!(at_hello(KNOWN, &forgot, &open), NOT_WHOLE);
        forgot.journal.oldest_record = 0;
        assert_eq!(at_hello(KNOWN, &forgot, &open), NOT_WHOLE);
    }

    #[test]
    fn an_agent_that_keeps_no_anchor_proves_nothing_by_absence() {
        let open = command(CommandState::Accepted, Reason::Unspecified, false);
        let mut old = hello();
        old.journal.anchor = None;
        assert!(!database_restored(KNOWN, &old));
        assert_eq!(at_hello(KNOWN, &old, &open), NOT_WHOLE);
    }
}
