//! What the agent knows of one feeder.

use std::collections::{BTreeMap, BTreeSet};

use pasamanos_proto::model::{
    Action, CommandName, CommandOrder, FeederConfig, FeederId, ObservedConfig, Reason,
};
use pasamanos_proto::pb;

use super::envelope::Envelope;
use crate::calendar::Moment;
use crate::driver::{ConfigReading, FeederDescription, Profile, Stamps};
use crate::journal::{Change, EnvelopeEntry, HoldRow, LoadedFeeder, LooseMarks};
use crate::records::account::Account;
use crate::records::{Alarm, Portion};

/// How long a write that timed out may still show, ms.
pub(crate) const LATE_MS: i64 = 240_000;

/// Config values that were written and may show later.
#[derive(Clone, Debug)]
pub(crate) struct Loose {
    /// The command that wrote them.
    pub order: CommandOrder,
    /// The session epoch in which it was journaled.
    pub epoch: i64,
    /// (PLC epoch, revision) that a block was based on: the PLC takes it on no other.
    pub base: Option<(u32, u32)>,
    /// Whether it was reported as UNCERTAIN; else it was found open after a restart.
    pub reported: bool,
    /// Found in the journal: what was on an in-process wire is gone.
    pub recovered: bool,
    /// Since when the values show, monotonic ms, and the alive value then.
    pub shown: Option<(i64, Option<u64>)>,
    /// The PLC's stamps when the values last did not show, or first showed; empty if it tells none.
    pub before: Stamps,
    /// Since when some of several values show, monotonic ms.
    pub mixed_ms: Option<i64>,
    /// It was reported that some of them show.
    pub mixed: bool,
    /// A person settled the command: it keeps no other config out, and is watched for a while only.
    pub resolved: bool,
    /// Until when it is watched then, monotonic ms; from the first look, also after a restart.
    pub until_ms: Option<i64>,
    /// What was seen of them and must outlast a restart.
    pub marks: LooseMarks,
}

impl Loose {
    /// Of a command that may still show.
    pub(crate) fn new(order: CommandOrder, epoch: i64, base: Option<(u32, u32)>) -> Self {
        Self {
            order,
            epoch,
            base,
            reported: true,
            recovered: false,
            shown: None,
            before: Stamps::new(),
            mixed_ms: None,
            mixed: false,
            resolved: false,
            until_ms: None,
            marks: LooseMarks::default(),
        }
    }

    /// Whether this config has values of the write, all of them or some over what was there before
    /// them: it is the command's then, never the farm's.
    pub(crate) fn shows_in(&self, config: &ObservedConfig) -> bool {
        let Action::UpdateConfig { base, new, .. } = &self.order.action else { return false };
        let base = ObservedConfig::from(base.clone());
        let before = self.marks.newer.as_ref().unwrap_or(&base);
        let Some(config) = config.valid() else { return false };
        let some = |before: &FeederConfig| {
            let moved = before.diff(config);
            !moved.is_empty() && before.merged(new, &moved) == *config
        };
        config == new || before.valid().is_some_and(some)
    }
}

/// The config that a PLC came up with after it lost its memory.
#[derive(Clone, Debug)]
enum Lost {
    /// Not read yet.
    Awaited,
    /// This one, as long as nobody changes it.
    Found(ObservedConfig),
}

/// One feeder's book.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    /// The feeder.
    pub feeder: FeederDescription,
    /// What holds it, by source.
    pub holds: BTreeMap<pb::HoldSource, HoldRow>,
    /// Until then a hold bit may be a late write of ours, on the clock that does not step.
    pub late_hold_ms: i64,
    /// Its account.
    pub account: Account,
    /// Its rolling 24 h.
    pub envelope: Envelope,
    /// Asked of a commanded dose that is not settled, mg: in the envelope already.
    pub reserved_mg: u64,
    /// Fed per day of the farm, mg.
    pub days: BTreeMap<String, i64>,
    /// The last dose of any origin.
    pub last_dose: Option<pb::Dose>,
    /// The portion found first, mg.
    pub first_portion_mg: Option<i32>,
    /// Config values that may still show: of one command in doubt, and of those that a person settled.
    pub loose: Vec<Loose>,
    /// Whether it was last read to feed by itself.
    pub automatic: bool,
    /// Readings that cannot be relied on: since when, monotonic ms, and whether that is alarmed.
    pub unfit: BTreeMap<&'static str, (i64, bool)>,
    /// What is alarmed already, so that each alarm is raised once.
    pub alarmed: BTreeSet<Reason>,
    /// What its PLC came up with after it lost its memory, until a config is confirmed or edited.
    lost: Option<Lost>,
    /// The PLC's epoch as the config last bore it.
    config_epoch: Option<u32>,
}

impl Book {
    /// Of what was journaled.
    pub(crate) fn new(feeder: FeederDescription, loaded: LoadedFeeder) -> Self {
        // Held for it since before the restart: nobody has confirmed a config.
        let held = |h: &HoldRow| h.source == pb::HoldSource::PlcMemoryLost;
        let lost = loaded.holds.iter().any(held).then_some(Lost::Awaited);
        Self {
            feeder,
            holds: loaded.holds.into_iter().map(|h| (h.source, h)).collect(),
            late_hold_ms: loaded.late_hold_ms,
            account: Account::new(loaded.mark),
            envelope: Envelope::new(loaded.envelope),
            reserved_mg: 0,
            days: loaded.days,
            last_dose: loaded.last_dose,
            first_portion_mg: loaded.first_portion_mg,
            loose: Vec::new(),
            automatic: false,
            unfit: BTreeMap::new(),
            alarmed: BTreeSet::new(),
            lost,
            config_epoch: None,
        }
    }

    /// Its PLC lost its memory: the config that is read next is nobody's.
    pub(crate) fn lose_memory(&mut self) {
        self.lost = Some(Lost::Awaited);
    }

    /// A person confirmed a config.
    pub(crate) fn confirm(&mut self, now: &Moment, changes: &mut Vec<Change>) {
        self.lift(pb::HoldSource::PlcMemoryLost, now, changes);
        self.lost = None;
    }

    /// Looks at a config that was read just now. It may show a new epoch before the slot does.
    pub(crate) fn see_config(&mut self, reading: &ConfigReading) {
        let epoch = reading.plc_epoch;
        let another = self.config_epoch.is_some_and(|old| epoch.is_some_and(|new| new != old));
        self.config_epoch = epoch.or(self.config_epoch);
        self.lost = match self.lost.take() {
            Some(Lost::Found(found)) if !another => {
                (found == reading.config).then_some(Lost::Found(found))
            }
            None if !another => None,
            _ => Some(Lost::Found(reading.config.clone())),
        };
    }

    /// Whether this config is what its PLC came up with after it lost its memory.
    pub(crate) fn is_memory_lost(&self, config: &ObservedConfig) -> bool {
        matches!(&self.lost, Some(Lost::Found(found)) if found == config)
    }

    fn id(&self) -> &FeederId {
        &self.feeder.feeder
    }

    /// Whether this config is that of a write that may still show, whole or, tag by tag, in part.
    pub(crate) fn is_loose(&self, config: &ObservedConfig) -> bool {
        self.loose.iter().any(|l| match (&l.order.action, self.feeder.profile) {
            (_, Profile::Scalar) => l.shows_in(config),
            (Action::UpdateConfig { new, .. }, _) => config.valid() == Some(new),
            _ => false,
        })
    }

    /// What may still show of this command.
    pub(crate) fn loose_of(&mut self, command: &CommandName) -> Option<&mut Loose> {
        self.loose.iter_mut().find(|l| l.order.command == *command)
    }

    /// A config of a command is in force: what others wrote before it, and a person settled, must
    /// not displace it any more.
    pub(crate) fn supersede(&mut self, by: &CommandName, config: &ObservedConfig) -> Vec<Change> {
        let mut changes = Vec::new();
        for loose in self.loose.iter_mut().filter(|l| l.resolved && l.order.command != *by) {
            loose.marks.newer = Some(config.clone());
            loose.shown = None;
            changes.push(Change::Loose(loose.order.command.clone(), loose.marks.clone()));
        }
        changes
    }

    /// What holds it, without the mark that its hold bit must go.
    pub(crate) fn held_by(&self) -> impl Iterator<Item = &HoldRow> {
        self.holds.values().filter(|h| h.source != pb::HoldSource::Unspecified)
    }

    /// Whether the PLC's hold bit shall be set by us.
    pub(crate) fn hold_wanted(&self) -> bool {
        self.held_by().any(|h| h.source != pb::HoldSource::Farm)
    }

    /// Whether the PLC's hold bit is ours and shall go.
    pub(crate) fn releasing(&self) -> bool {
        self.holds.contains_key(&pb::HoldSource::Unspecified) && self.held_by().next().is_none()
    }

    /// Begins a hold.
    pub(crate) fn hold(
        &mut self,
        source: pb::HoldSource,
        by: (&str, &str),
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        let since_ms = self.holds.get(&source).map_or(now.wall_ms, |h| h.since_ms);
        let (author, note) = (by.0.to_owned(), by.1.to_owned());
        let row = HoldRow { feeder: self.id().clone(), source, since_ms, author, note };
        if self.holds.get(&source) != Some(&row) {
            changes.push(Change::Hold(row.clone()));
            self.holds.insert(source, row);
        }
        if source != pb::HoldSource::Unspecified {
            self.forget(pb::HoldSource::Unspecified, changes);
        }
    }

    /// Ends a hold. If it was the last of ours, the bit that we set must go.
    pub(crate) fn lift(&mut self, source: pb::HoldSource, now: &Moment, changes: &mut Vec<Change>) {
        let ours = source != pb::HoldSource::Farm;
        if self.forget(source, changes) && ours && self.held_by().next().is_none() {
            self.hold(pb::HoldSource::Unspecified, ("", ""), now, changes);
        }
    }

    /// A write of the hold bit timed out: it may show after a resume.
    pub(crate) fn hold_may_be_late(&mut self, now: &Moment, changes: &mut Vec<Change>) {
        // Journaled once for a burst of them.
        if self.late_hold_ms < now.steady_ms + LATE_MS / 2 {
            self.late_hold_ms = now.steady_ms + LATE_MS;
            changes.push(Change::LateHold(self.id().clone(), self.late_hold_ms));
        }
    }

    /// Takes a hold out of the set; the bit is as it should be.
    pub(crate) fn forget(&mut self, source: pb::HoldSource, changes: &mut Vec<Change>) -> bool {
        let was = self.holds.remove(&source).is_some();
        if was {
            changes.push(Change::Lift(self.id().clone(), source));
        }
        was
    }

    /// Raises an alarm unless it stands already.
    pub(crate) fn alarm(&mut self, alarm: &Alarm, now: &Moment, changes: &mut Vec<Change>) {
        if self.alarmed.insert(alarm.reason) {
            changes.push(Change::Record(Box::new(alarm.to_record(now.wall_ms))));
        }
    }

    /// Fed on that day, mg, with what is leaving it now.
    pub(crate) fn fed_mg(&self, date: &str) -> i64 {
        self.day_mg(date, self.account.unrecorded_mg())
    }

    /// What counts towards that day's cap, mg: a dose that is reserved counts in full.
    pub(crate) fn counted_mg(&self, date: &str) -> i64 {
        self.day_mg(date, self.account.unrecorded_mg().max(self.reserved_mg))
    }

    fn day_mg(&self, date: &str, live: u64) -> i64 {
        self.days.get(date).copied().unwrap_or(0) + i64::try_from(live).unwrap_or(0)
    }

    /// What the envelope leaves, mg; `None` if it has none. With `assumed`, what a lost journal may
    /// have known counts: it inhibits doses, and does not stop the schedule.
    pub(crate) fn envelope_left_mg(&self, steady_ms: i64, assumed: bool) -> Option<i64> {
        let limit = self.feeder.envelope_mg?;
        let live = self.account.unrecorded_mg().saturating_sub(self.reserved_mg);
        let live = i64::try_from(live).unwrap_or(0);
        Some((limit - self.envelope.sum_mg(steady_ms, assumed) - live).max(0))
    }

    /// Puts a portion into history, day and last dose; into the envelope unless it was reserved.
    pub(crate) fn record(
        &mut self,
        portion: &Portion,
        date: &str,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        let dose = portion.to_dose(&self.feeder, date);
        let mg = i64::try_from(portion.mg()).unwrap_or(i64::MAX);
        changes.push(Change::Record(Box::new(pb::record::Content::Dose(dose.clone()))));
        if portion.outcome != pb::DoseOutcome::Skipped {
            changes.push(Change::LastDose(self.id().clone(), Box::new(dose.clone())));
            self.last_dose = Some(dose);
        }
        if mg == 0 {
            return;
        }
        let day = self.days.entry(date.to_owned()).or_insert(0);
        *day += mg;
        changes.push(Change::Day(self.feeder.feeder.clone(), date.to_owned(), *day));
        while self.days.len() > 3 {
            self.days.pop_first();
        }
        if portion.command.is_none() {
            self.count(mg, None, false, now, changes);
        }
    }

    /// Counts towards the envelope.
    pub(crate) fn count(
        &mut self,
        mg: i64,
        command: Option<&CommandName>,
        assumed: bool,
        now: &Moment,
        changes: &mut Vec<Change>,
    ) {
        let entry = EnvelopeEntry { at_ms: now.steady_ms, mg, command: command.cloned(), assumed };
        self.envelope.add(entry.clone());
        changes.push(Change::Envelope(self.id().clone(), entry));
    }
}
