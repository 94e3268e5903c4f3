//! What a transaction of the journal may hold.

use pasamanos_proto::model::{
    AuditAnchor, CommandName, CommandOrder, CommandReport, FeederId, ObservedConfig, RobotId,
};
use pasamanos_proto::pb;

use crate::driver::SlotResult;

/// A robot's slot, given to one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotUse {
    /// The PLC's epoch.
    pub epoch: u32,
    /// The sequence.
    pub sequence: u32,
    /// The command's token.
    pub token: u32,
}

/// One journaled command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    /// As it was received.
    pub order: CommandOrder,
    /// Its feeder's robot.
    pub robot: RobotId,
    /// The session epoch in which it was journaled.
    pub epoch: i64,
    /// The slot that it was given; of a config block, the (epoch, revision) that it is based on.
    pub slot: Option<SlotUse>,
    /// What became of it; `None` while it is an open intent.
    pub report: Option<CommandReport>,
    /// Whether nothing about it is in doubt.
    pub settled: bool,
    /// Whether its config values may still show.
    pub loose: bool,
    /// What was seen of them since.
    pub marks: LooseMarks,
}

/// What was seen of config values that may still show.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LooseMarks {
    /// A version that came after them and is in force.
    pub newer: Option<ObservedConfig>,
    /// That version was written again; at most once.
    pub rewritten: bool,
    /// They showed once.
    pub showed: bool,
}

/// Why a feeder is held. `Unspecified`: its hold bit is ours and must go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HoldRow {
    /// Which.
    pub feeder: FeederId,
    /// Who or what.
    pub source: pb::HoldSource,
    /// Since when, wall clock.
    pub since_ms: i64,
    /// Who set it, if a person.
    pub author: String,
    /// What they said.
    pub note: String,
}

/// Up to where a feeder's feed is in records.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Mark {
    /// Totaliser up to which all growth is recorded, mg.
    pub total_mg: Option<u64>,
    /// Recorded and not yet shown by the totaliser, mg.
    pub ahead_mg: u64,
    /// The last meal of the schedule that is recorded.
    pub meal: Option<u32>,
}

/// Feed that counts towards a feeder's rolling 24 h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvelopeEntry {
    /// When, on the clock that does not step.
    pub at_ms: i64,
    /// How much.
    pub mg: i64,
    /// Reserved for this command, or counted for it.
    pub command: Option<CommandName>,
    /// Not seen: stands for what a lost journal knew.
    pub assumed: bool,
}

/// One change; a commit holds several.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A session's epoch, the farm's zone, the highest record that the server has and where its audit
    /// chain is, before the session's first frame.
    Epoch {
        /// Of the session.
        epoch: i64,
        /// IANA.
        zone: String,
        /// 0 if it has none.
        records_through: i64,
        /// `None` from a server that tells none.
        anchor: Option<AuditAnchor>,
        /// What it acknowledged last may be lost there.
        tell_again: bool,
    },
    /// A command is about to be executed, or was answered without.
    Command(Box<Entry>),
    /// What became of a journaled command, or what its doubt was settled to.
    Outcome { report: Box<CommandReport>, settled: bool, loose: bool },
    /// What was seen of its loose values.
    Loose(CommandName, LooseMarks),
    /// They are not watched any more.
    Forgotten(CommandName),
    /// A person settled it. What it wrote may show all the same.
    Resolved(CommandName, pb::Resolution),
    /// The last slot used of a robot.
    Slot(RobotId, u32, u32),
    /// Up to this slot, what a robot's PLC took unknown to the journal was taken in; `gap`: some of it
    /// is known to nobody.
    Recalled { robot: RobotId, epoch: u32, sequence: u32, doses: Vec<SlotResult>, gap: bool },
    /// Someone at the farm has looked: doses of this robot, or of all, may go on.
    GapClosed(Option<RobotId>),
    /// A robot's PLC was read to be in this epoch.
    PlcEpoch(RobotId, u32),
    /// The slot of a robot that was last read as consumed; `None` if its PLC forgot it.
    Consumed(RobotId, Option<(u32, u32)>),
    /// A hold begins.
    Hold(HoldRow),
    /// A hold ends.
    Lift(FeederId, pb::HoldSource),
    /// Feed up to here is recorded.
    Mark(FeederId, Mark),
    /// Until then, on the steady clock, a hold bit may be a late write of ours.
    LateHold(FeederId, i64),
    /// The portion found at the first inventory, mg.
    FirstPortion(FeederId, i32),
    /// A dose or alarm for the history.
    Record(Box<pb::record::Content>),
    /// The feeder's last dose.
    LastDose(FeederId, Box<pb::Dose>),
    /// Fed on a day of the farm, in all, mg.
    Day(FeederId, String, i64),
    /// Counts towards the envelope, mg.
    Envelope(FeederId, EnvelopeEntry),
    /// What a reserved amount came to, mg.
    EnvelopeSettled(CommandName, i64),
    /// Someone at the farm begins the envelope anew.
    EnvelopeReset(Option<FeederId>),
}
