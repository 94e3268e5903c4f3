//! Every milligram in exactly one record.

#![allow(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::driver::FeederSnapshot;

fn feeder(total: u64, dosing: bool, meal: Option<Meal>) -> FeederSnapshot {
    FeederSnapshot {
        feeder: "feeder-a1".parse().unwrap(),
        held: Some(false),
        dosing,
        total_mg: Some(total),
        next_dose_in_s: None,
        meal,
    }
}

fn meal(number: u32, state: SlotState, mg: u32) -> Meal {
    Meal { number, state, reason: 0, planned_mg: 100, dispensed_mg: mg }
}

struct Bench {
    account: Account,
    now: i64,
    commanded: bool,
}

impl Bench {
    fn new() -> Self {
        Self { account: Account::default(), now: 0, commanded: false }
    }

    fn see(&mut self, f: &FeederSnapshot) -> Vec<(pb::DoseCause, u64)> {
        self.now += 500;
        let sight = Sight {
            feeder: f,
            mono_ms: self.now,
            wall_ms: self.now,
            gap_ms: 5_000,
            automatic: true,
            commanded: self.commanded,
            basis: Basis::Counted,
        };
        let seen = self.account.observe(&sight);
        seen.into_iter().map(|p| (p.cause, p.mg())).collect()
    }
}

#[test]
fn a_meal_is_recorded_when_it_ends() {
    let mut b = Bench::new();
    assert!(b.see(&feeder(1_000, false, Some(meal(4, SlotState::Done, 100)))).is_empty());
    assert!(b.see(&feeder(1_040, true, Some(meal(5, SlotState::Started, 40)))).is_empty());
    assert_eq!(b.account.unrecorded_mg(), 40);
    let ended = b.see(&feeder(1_100, false, Some(meal(5, SlotState::Done, 100))));
    assert_eq!(ended, vec![(pb::DoseCause::Schedule, 100)]);
    assert!(b.see(&feeder(1_100, false, Some(meal(5, SlotState::Done, 100)))).is_empty());
}

#[test]
fn a_skipped_meal_is_a_row_with_nothing_in_it() {
    let mut b = Bench::new();
    b.see(&feeder(0, false, Some(meal(4, SlotState::Done, 100))));
    let skipped = b.see(&feeder(0, false, Some(meal(5, SlotState::Rejected, 0))));
    assert_eq!(skipped, vec![(pb::DoseCause::Schedule, 0)]);
}

#[test]
fn growth_without_a_meal_is_the_farms_and_unwatched_growth_is_nobodys() {
    let mut b = Bench::new();
    let done = Some(meal(4, SlotState::Done, 100));
    b.see(&feeder(0, false, done));
    assert!(b.see(&feeder(70, true, done)).is_empty());
    assert!(b.see(&feeder(90, false, done)).is_empty(), "not at rest yet");
    assert_eq!(b.see(&feeder(90, false, done)), vec![(pb::DoseCause::Farm, 90)]);
    // The agent was down: six meals and whatever else.
    let mut again = Bench { account: Account::new(b.account.mark.clone()), ..Bench::new() };
    let found = again.see(&feeder(690, false, Some(meal(10, SlotState::Done, 100))));
    assert_eq!(found, vec![(pb::DoseCause::Unobserved, 500), (pb::DoseCause::Schedule, 100)]);
}

#[test]
fn a_commands_feed_is_the_commands() {
    let mut b = Bench::new();
    b.see(&feeder(0, false, None));
    b.commanded = true;
    b.see(&feeder(60, true, None));
    b.see(&feeder(200, false, None));
    // It ended with 200, of which the totaliser showed 200.
    b.account.command_dispensed(200, b.now);
    b.commanded = false;
    b.see(&feeder(200, false, None));
    assert!(b.see(&feeder(200, false, None)).is_empty());
    // A totaliser that is a scan late.
    b.account.command_dispensed(50, b.now);
    assert!(b.see(&feeder(250, false, None)).is_empty());
    assert!(b.see(&feeder(250, false, None)).is_empty());
    assert_eq!(b.account.mark.ahead_mg, 0);
}

#[test]
fn a_totaliser_that_wraps_goes_on_and_one_that_is_set_back_begins_anew() {
    let mut b = Bench::new();
    b.see(&feeder(WRAP - 50, false, None));
    b.see(&feeder(150, false, None));
    assert_eq!(b.see(&feeder(150, false, None)), vec![(pb::DoseCause::Schedule, 200)]);
    assert!(b.see(&feeder(10, false, None)).is_empty());
    assert!(b.see(&feeder(10, false, None)).is_empty());
    assert_eq!(b.account.unrecorded_mg(), 0);
}

#[derive(Clone, Debug)]
enum Event {
    /// A meal: amount, and whether it is seen to run, seen when it ended, or not at all.
    Meal(u32, u8),
    /// Someone at the farm.
    Hand(u32),
    /// A command, settled at once or two looks later.
    Command(u32, bool),
    /// Looks that show nothing new.
    Look(u8),
    /// The agent restarts, perhaps after a while.
    Restart(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (1u32..500, 0u8..4).prop_map(|(mg, seen)| Event::Meal(mg, seen)),
        (1u32..500).prop_map(Event::Hand),
        (1u32..500, any::<bool>()).prop_map(|(mg, late)| Event::Command(mg, late)),
        (0u8..4).prop_map(Event::Look),
        any::<bool>().prop_map(Event::Restart),
    ];
    proptest::collection::vec(event, 0..40)
}

proptest! {
    #[test]
    fn every_milligram_is_in_exactly_one_record(events in events(), meals in any::<bool>(), start in 0u64..WRAP) {
        let mut b = Bench::new();
        let (mut total, mut number) = (start, 0u32);
        let mut recorded = 0u64;
        let last = |n: u32, mg| meals.then(|| meal(n, SlotState::Done, mg));
        let mut shown = last(0, 0);
        let mut grown = 0u64;
        let mut grow = |total: &mut u64, mg: u32| {
            grown += u64::from(mg);
            *total = (*total + u64::from(mg)) % WRAP;
        };
        b.see(&feeder(total, false, shown));
        for event in events {
            match event {
                Event::Meal(mg, seen) => {
                    number += 1;
                    let half = mg / 2;
                    grow(&mut total, half);
                    if seen == 0 {
                        let running = meals.then(|| meal(number, SlotState::Started, half));
                        recorded += b.see(&feeder(total, true, running)).iter().map(|p| p.1).sum::<u64>();
                    }
                    grow(&mut total, mg - half);
                    shown = last(number, mg);
                    if seen < 3 {
                        recorded += b.see(&feeder(total, false, shown)).iter().map(|p| p.1).sum::<u64>();
                    }
                }
                Event::Hand(mg) => grow(&mut total, mg),
                Event::Command(mg, late) => {
                    // As the executor does: at rest before, journaled as open, settled from the slot.
                    for _ in 0..3 {
                        recorded += b.see(&feeder(total, false, shown)).iter().map(|p| p.1).sum::<u64>();
                    }
                    b.commanded = true;
                    let before = total;
                    grow(&mut total, mg);
                    let visible = if late { before } else { total };
                    recorded += b.see(&feeder(visible, false, shown)).iter().map(|p| p.1).sum::<u64>();
                    b.account.command_dispensed(mg.into(), b.now);
                    recorded += u64::from(mg);
                    b.commanded = false;
                }
                Event::Look(n) => {
                    for _ in 0..n {
                        recorded += b.see(&feeder(total, false, shown)).iter().map(|p| p.1).sum::<u64>();
                    }
                }
                Event::Restart(long) => {
                    b.account = Account::new(b.account.mark.clone());
                    b.now += if long { 3_600_000 } else { 10 };
                }
            }
        }
        for _ in 0..4 {
            recorded += b.see(&feeder(total, false, shown)).iter().map(|p| p.1).sum::<u64>();
        }
        prop_assert_eq!(recorded, grown);
        prop_assert_eq!(b.account.unrecorded_mg(), 0);
        prop_assert_eq!(b.account.mark.ahead_mg, 0);
    }
}

/// A person said what a dose fed while its PLC could not be read: when it shows it is theirs already.
#[test]
fn what_was_recorded_of_a_plc_that_cannot_be_read_is_not_recorded_again() {
    let journaled = |ahead_mg| Mark { total_mg: Some(1_000), ahead_mg, meal: None };
    // Not read since the start.
    let mut b = Bench { account: Account::new(journaled(0)), ..Bench::new() };
    b.account.command_dispensed(300, 0);
    assert_eq!((b.account.mark.total_mg, b.account.mark.ahead_mg), (Some(1_000), 300));
    for total in [1_000, 1_200, 1_300, 1_300] {
        assert!(b.see(&feeder(total, false, None)).is_empty());
    }
    assert_eq!(b.account.mark.ahead_mg, 0);
    // Recorded by the process before; it runs after this one looked, long after the machine started.
    let account = Account::new(journaled(300));
    let mut b = Bench { account, now: 10_000_000, commanded: false };
    for total in [1_000, 1_000, 1_300, 1_300] {
        assert!(b.see(&feeder(total, false, None)).is_empty());
    }
    // Recorded, then not readable for long, then it runs.
    b.account.command_dispensed(200, b.now);
    b.now += 600_000;
    for total in [1_300, 1_300, 1_500, 1_500] {
        assert!(b.see(&feeder(total, false, None)).is_empty());
    }
}
