//! Whether a dose may begin: everything that stands in its way, in the order in which a person would
//! want to know. The page shows the same list. Pure.

use std::collections::BTreeMap;

use pasamanos_faults::planted;
use pasamanos_proto::model::{
    FeedNowCapability, FeederConfig, Limits, Mode, ObservedConfig, Reason,
};
use pasamanos_proto::pb::{self, LinkState};

use super::verdict::Verdict;
use crate::calendar::Moment;
use crate::driver::{FeederDescription, RobotSnapshot, RobotTraits};
use crate::guard;
use crate::ledger::{Book, State};

/// One thing that stands in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The reason's metadata.
    pub metadata: BTreeMap<String, String>,
}

impl Refusal {
    fn of(reason: Reason, feeder: &FeederDescription) -> Self {
        Self::bare(reason).with("feeder", &feeder.feeder)
    }

    fn bare(reason: Reason) -> Self {
        Self { reason, metadata: BTreeMap::new() }
    }

    #[allow(clippy::needless_pass_by_value, reason = "numbers and names, as they come")]
    fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// As the end of a command.
    pub(crate) fn verdict(self) -> Verdict {
        Verdict { metadata: self.metadata, ..Verdict::rejected(self.reason) }
    }
}

/// What is known of a feeder at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// The robot's ledger.
    pub state: &'a State,
    /// The feeder's book.
    pub book: &'a Book,
    /// The robot as read.
    pub snapshot: &'a RobotSnapshot,
    /// Its link.
    pub link: LinkState,
    /// The feeder's config as read.
    pub config: Option<&'a ObservedConfig>,
    /// What the robot can prove.
    pub traits: &'a RobotTraits,
    /// Now.
    pub now: &'a Moment,
}

/// All that stands in the way of a dose of so many mg.
pub(crate) fn refusals(s: &Scene<'_>, amount_mg: i64) -> Vec<Refusal> {
    let feeder = &s.book.feeder;
    let mut found = Vec::new();
    if s.traits.read_only {
        found.push(Refusal::of(Reason::ReadOnly, feeder));
    }
    if feeder.capabilities.feed_now == FeedNowCapability::None
        || (s.traits.sequenced && s.snapshot.slot.is_none())
    {
        found.push(Refusal::of(Reason::NotOffered, feeder).with("capability", "feed_now"));
    }
    if s.link != LinkState::Up {
        found.push(Refusal::bare(Reason::PlcUnreachable).with("robot", &feeder.robot));
    }
    if let Some(open) = &s.state.open_dose
        && !planted!("agent-doubt-unlocks")
    {
        found.push(
            Refusal::bare(Reason::DoseUnsettled)
                .with("robot", &feeder.robot)
                .with("command", &open.order.command),
        );
    }
    if s.state.recall.gap {
        found.push(Refusal::bare(Reason::JournalNotWhole).with("robot", &feeder.robot));
    }
    if s.snapshot.local {
        found.push(Refusal::of(Reason::LocalHold, feeder));
    }
    if let Some(fault) = s.snapshot.faults.first() {
        found.push(Refusal::of(Reason::FeederFault, feeder).with("fault_code", fault.code));
    }
    holds(s, &mut found);
    let Some(config) = s.config else {
        found.push(Refusal::of(Reason::ConfigUnknown, feeder));
        return found;
    };
    // A raw config is the farm's business; what can be read of it counts.
    if let Some(config) = config.valid() {
        limits(s, config, amount_mg, &mut found);
    }
    if let Some(left) = s.book.envelope_left_mg(s.now.steady_ms, true)
        && left < amount_mg.max(1)
    {
        found.push(Refusal::of(Reason::Envelope, feeder).with("left_mg", left));
    }
    found
}

fn holds(s: &Scene<'_>, found: &mut Vec<Refusal>) {
    let feeder = &s.book.feeder;
    for hold in s.book.held_by() {
        found.push(match hold.source {
            pb::HoldSource::Farm => Refusal::of(Reason::LocalHold, feeder),
            source => Refusal::of(Reason::FeederHeld, feeder)
                .with("source", source.as_str_name().trim_start_matches("HOLD_SOURCE_")),
        });
    }
    let bit = s.snapshot.feeders.iter().any(|f| f.feeder == feeder.feeder && f.held == Some(true));
    if bit && s.book.held_by().next().is_none() {
        found.push(Refusal::of(Reason::LocalHold, feeder));
    }
}

fn limits(s: &Scene<'_>, config: &FeederConfig, amount_mg: i64, found: &mut Vec<Refusal>) {
    let feeder = &s.book.feeder;
    if config.mode == Mode::Off {
        found.push(Refusal::of(Reason::FeederOff, feeder));
    }
    for lock in guard::forbidden(feeder, &config.interlocks, s.snapshot) {
        let refusal = Refusal::of(Reason::Interlock, feeder)
            .with("kind", guard::kind_name(lock.kind))
            .with("limit", lock.limit);
        // A reading that cannot be relied on has no value to show.
        found.push(match lock.value {
            Some(value) => refusal.with("value", value),
            None => refusal,
        });
    }
    if let Some(left) = guard::cap_left_mg(s.book, config, &s.now.date)
        && left < amount_mg.max(1)
    {
        found.push(Refusal::of(Reason::DailyCap, feeder).with("left_mg", left));
    }
}

/// What the farm allows, whatever the server says. The most defaults to ten times what was found.
pub(crate) fn limits_of(book: &Book) -> Limits {
    let most = || book.first_portion_mg.map(|mg| mg.saturating_mul(10));
    let limits = book.feeder.limits.clone();
    Limits { portion_max_mg: limits.portion_max_mg.or_else(most), ..limits }
}

/// The first rule of the farm that an amount breaks.
pub(crate) fn broken_limit(limits: &Limits, mg: i32) -> Option<String> {
    if let Some(min) = limits.portion_min_mg.filter(|min| mg < *min) {
        return Some(format!("{mg} mg is below the feeder's least of {min} mg"));
    }
    if let Some(max) = limits.portion_max_mg.filter(|max| mg > *max) {
        return Some(format!("{mg} mg is above the feeder's most of {max} mg"));
    }
    let step = limits.portion_step_mg.filter(|step| *step > 0 && mg % step != 0)?;
    Some(format!("{mg} mg is not a multiple of the feeder's step of {step} mg"))
}
