//! The stream's frames, validated on receipt on either side.

use super::{
    Action, AgentName, BodyHash, CommandName, CommandReport, FeederId, Invalid, Inventory, Note,
    RecordBatch, RobotId, note,
};
use crate::pb;

/// A frame from an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentFrame {
    /// The session's epoch; 0 in a hello.
    pub epoch: i64,
    /// Which start of the farm PC `monotonic_ms` counts from.
    pub boot_id: String,
    /// The farm PC's monotonic clock when the frame was sent, ms.
    pub monotonic_ms: i64,
    /// What it says.
    pub body: AgentFrameBody,
}

/// What an agent's frame says.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentFrameBody {
    /// First, once.
    Hello(Box<Hello>),
    /// It lives.
    Heartbeat(pb::Heartbeat),
    /// Something changed. Slugs in it are checked where they are looked up.
    Status(pb::StatusReport),
    /// Of one command.
    Command(Box<CommandReport>),
    /// Records of doses and alarms.
    Records(RecordBatch),
    /// It ends.
    Goodbye(String),
}

/// Who the agent is, what it holds, what it has done.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// The protocol it speaks.
    pub protocol_version: i32,
    /// Its name.
    pub agent: AgentName,
    /// Its version, for people.
    pub agent_version: String,
    /// How far its journal reaches.
    pub journal: JournalState,
    /// What there is.
    pub inventory: Inventory,
    /// Every journaled command that was not acknowledged; open intents are `Executing`.
    pub commands: Vec<CommandReport>,
    /// What those commands were, as the agent received them.
    pub orders: Vec<CommandOrder>,
}

/// How far a journal reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalState {
    /// New whenever a journal is made anew.
    pub incarnation: String,
    /// The epoch of the last session that it made durable.
    pub last_epoch: i64,
    /// The highest record sequence ever given.
    pub record_high_water: i64,
    /// The lowest record sequence still held; 0 if none.
    pub oldest_record: i64,
    /// Each robot's slot.
    pub slots: Vec<RobotSlot>,
    /// How far the server was when it last acknowledged; `None` from an agent that does not keep it.
    pub anchor: Option<AuditAnchor>,
}

impl JournalState {
    /// The highest record that the journal holds no more; 0 if it holds all that it ever gave. It was
    /// acknowledged, or the journal lost it.
    #[must_use]
    pub fn records_forgotten(&self) -> i64 {
        match self.oldest_record {
            0 => self.record_high_water,
            oldest => oldest - 1,
        }
    }
}

/// A place in a farm's audit chain. Whoever has this record has every one before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditAnchor {
    /// The record's number; 0 is the chain's beginning.
    pub sequence: i64,
    /// Its hash; zeros at the beginning.
    pub hash: [u8; 32],
}

impl TryFrom<pb::AuditAnchor> for AuditAnchor {
    type Error = Invalid;

    fn try_from(m: pb::AuditAnchor) -> Result<Self, Invalid> {
        let hash: Result<[u8; 32], _> = m.hash[..].try_into();
        match (m.sequence, hash) {
            (0, _) => Ok(Self::default()),
            (sequence @ 1.., Ok(hash)) => Ok(Self { sequence, hash }),
            _ => Err(Invalid::field("anchor", "needs a sequence and a hash of 32 bytes")),
        }
    }
}

impl From<AuditAnchor> for pb::AuditAnchor {
    fn from(a: AuditAnchor) -> Self {
        Self { sequence: a.sequence, hash: a.hash.to_vec().into() }
    }
}

/// A robot's slot as journal and PLC have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RobotSlot {
    /// Which.
    pub robot: RobotId,
    /// Whether its PLC could be read.
    pub readable: bool,
    /// Whether its PLC has a sequenced slot at all.
    pub sequenced: bool,
    /// (epoch, last sequence) of the PLC.
    pub plc: (u32, u32),
    /// (epoch, last sequence) of the journal; epoch 0 if it never used the slot.
    pub journal: (u32, u32),
}

impl RobotSlot {
    /// Whether the journal knows all that this slot has done: nothing to compare, never used by
    /// anybody, or the two agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let unused = self.journal.0 == 0 && self.plc.1 == 0;
        !self.sequenced || unused || self.plc == self.journal
    }
}

const MAX_COMMANDS: usize = 10_000;

impl TryFrom<pb::ConnectRequest> for AgentFrame {
    type Error = Invalid;

    fn try_from(m: pb::ConnectRequest) -> Result<Self, Invalid> {
        use pb::connect_request::Frame;
        // Far beyond any uptime, and far from overflow in the sums that it goes into.
        const MAX_MS: i64 = i64::MAX / 8;
        let clock = (0..MAX_MS).contains(&m.monotonic_ms);
        if m.boot_id.is_empty() || m.boot_id.len() > 64 || !clock || m.epoch < 0 {
            return Err(Invalid::field("boot_id", "boot_id, monotonic_ms and epoch are required"));
        }
        let frame = m.frame.ok_or_else(|| Invalid::field("frame", "is required"))?;
        let body = match frame {
            Frame::Hello(h) => AgentFrameBody::Hello(Box::new(
                h.try_into().map_err(|e: Invalid| e.under("hello"))?,
            )),
            Frame::Heartbeat(h) => AgentFrameBody::Heartbeat(h),
            Frame::Status(s) => AgentFrameBody::Status(s),
            Frame::CommandUpdate(u) => AgentFrameBody::Command(Box::new(
                u.try_into().map_err(|e: Invalid| e.under("command_update"))?,
            )),
            Frame::Records(r) => {
                AgentFrameBody::Records(r.try_into().map_err(|e: Invalid| e.under("records"))?)
            }
            Frame::Goodbye(g) => AgentFrameBody::Goodbye(g.detail.chars().take(200).collect()),
        };
        Ok(Self { epoch: m.epoch, boot_id: m.boot_id, monotonic_ms: m.monotonic_ms, body })
    }
}

impl TryFrom<pb::Hello> for Hello {
    type Error = Invalid;

    fn try_from(m: pb::Hello) -> Result<Self, Invalid> {
        let journal = m.journal.ok_or_else(|| Invalid::field("journal", "is required"))?;
        let inventory = m.inventory.ok_or_else(|| Invalid::field("inventory", "is required"))?;
        if m.commands.len() > MAX_COMMANDS || m.orders.len() > MAX_COMMANDS {
            return Err(Invalid::field("commands", format!("must be at most {MAX_COMMANDS}")));
        }
        if m.agent_version.len() > 64
            || journal.incarnation.is_empty()
            || journal.incarnation.len() > 64
        {
            return Err(Invalid::field("journal", "needs an incarnation of at most 64 characters"));
        }
        if journal.last_epoch < 0 || journal.record_high_water < 0 || journal.oldest_record < 0 {
            return Err(Invalid::field("journal", "must not hold negative numbers"));
        }
        let slots = journal.slots.into_iter().map(RobotSlot::try_from).collect::<Result<_, _>>()?;
        Ok(Self {
            protocol_version: m.protocol_version,
            agent: m.agent.parse().map_err(|e: Invalid| e.under("agent"))?,
            agent_version: m.agent_version,
            journal: JournalState {
                incarnation: journal.incarnation,
                last_epoch: journal.last_epoch,
                record_high_water: journal.record_high_water,
                oldest_record: journal.oldest_record,
                slots,
                anchor: journal.anchor.map(AuditAnchor::try_from).transpose()?,
            },
            inventory: inventory.try_into()?,
            commands: m
                .commands
                .into_iter()
                .map(CommandReport::try_from)
                .collect::<Result<_, _>>()?,
            // They serve a server that lost them; one that cannot be read must not keep a farm offline.
            orders: m.orders.into_iter().filter_map(|o| CommandOrder::try_from(o).ok()).collect(),
        })
    }
}

impl TryFrom<pb::RobotSlot> for RobotSlot {
    type Error = Invalid;

    fn try_from(s: pb::RobotSlot) -> Result<Self, Invalid> {
        Ok(Self {
            robot: s.robot.parse().map_err(|e: Invalid| e.under("robot"))?,
            readable: s.readable,
            sequenced: s.sequenced,
            plc: (s.plc_epoch, s.plc_last_sequence),
            journal: (s.journal_epoch, s.journal_last_sequence),
        })
    }
}

impl From<Hello> for pb::Hello {
    fn from(h: Hello) -> Self {
        let slots = h.journal.slots.iter().map(|s| pb::RobotSlot {
            robot: s.robot.to_string(),
            readable: s.readable,
            sequenced: s.sequenced,
            plc_epoch: s.plc.0,
            plc_last_sequence: s.plc.1,
            journal_epoch: s.journal.0,
            journal_last_sequence: s.journal.1,
        });
        Self {
            protocol_version: h.protocol_version,
            capabilities: Vec::new(),
            agent: h.agent.to_string(),
            agent_version: h.agent_version,
            journal: Some(pb::JournalState {
                incarnation: h.journal.incarnation.clone(),
                last_epoch: h.journal.last_epoch,
                record_high_water: h.journal.record_high_water,
                oldest_record: h.journal.oldest_record,
                slots: slots.collect(),
                anchor: h.journal.anchor.map(Into::into),
            }),
            inventory: Some((&h.inventory).into()),
            commands: h.commands.into_iter().map(Into::into).collect(),
            orders: h.orders.into_iter().map(Into::into).collect(),
        }
    }
}

/// A command as the agent receives it.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandOrder {
    /// Its name.
    pub command: CommandName,
    /// The feeder.
    pub feeder: FeederId,
    /// Its number within the feeder.
    pub number: i64,
    /// The hash of its body, recomputed on receipt.
    pub body_hash: BodyHash,
    /// The boot id that `start_before_ms` counts in.
    pub boot_id: String,
    /// The last instant it may start, in the agent's monotonic ms.
    pub start_before_ms: i64,
    /// Who asked.
    pub author: String,
    /// What they said.
    pub note: Note,
    /// What to do.
    pub action: Action,
}

impl TryFrom<pb::CommandFrame> for CommandOrder {
    type Error = Invalid;

    fn try_from(m: pb::CommandFrame) -> Result<Self, Invalid> {
        let feeder: FeederId = m.feeder.parse().map_err(|e: Invalid| e.under("feeder"))?;
        let action: Action =
            m.action.ok_or_else(|| Invalid::field("action", "is required"))?.try_into()?;
        let body_hash = BodyHash::try_from(&m.body_hash[..])?;
        if action.body_hash(&feeder) != body_hash {
            return Err(Invalid::field("body_hash", "is not that of the body"));
        }
        Ok(Self {
            command: m.command.parse().map_err(|e: Invalid| e.under("command"))?,
            feeder,
            number: m.number,
            body_hash,
            boot_id: m.boot_id,
            start_before_ms: m.start_before_ms,
            author: m.author,
            note: note(&m.note)?,
            action,
        })
    }
}

impl From<CommandOrder> for pb::CommandFrame {
    fn from(c: CommandOrder) -> Self {
        Self {
            command: c.command.to_string(),
            feeder: c.feeder.to_string(),
            number: c.number,
            body_hash: c.body_hash.as_bytes().to_vec().into(),
            boot_id: c.boot_id,
            start_before_ms: c.start_before_ms,
            author: c.author,
            note: c.note.into_string(),
            action: Some((&c.action).into()),
        }
    }
}
