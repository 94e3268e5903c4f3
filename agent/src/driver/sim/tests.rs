//! The rules of the simulated PLC, without sleeping.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use pasamanos_proto::model::FieldSet;
use pasamanos_proto::pb::ReadingKind;

use super::Now;
use super::machine::{Effect, Line, Machine, Outlet};
use super::water::Water;
use crate::config::{Overrides, parse};
use crate::driver::{DriverError, SlotBlock, SlotOp, SlotState, slot_reason};

const RATE: u32 = 500;

/// So many milliseconds after noon of day 0.
fn at(ms: i64) -> Now {
    let second = 43_200 + ms.div_euclid(1_000);
    let plc_ms = 1_000_000 + ms;
    Now {
        plc_ms,
        day: second.div_euclid(86_400),
        second: u32::try_from(second.rem_euclid(86_400)).unwrap(),
    }
}

/// A robot with one manual feeder of 1,500 mg an hour, and what else its `initial` says.
fn machine(initial: &str) -> Machine {
    let text = format!(
        "agent = \"farms/blue/agents/farm-pc\"\n[[plc]]\nname = \"sim-1\"\ndriver = \"sim\"\n\
         [[robot]]\nid = \"robot-1\"\nplc = \"sim-1\"\n\
         [[feeder]]\nid = \"feeder-1\"\nrobot = \"robot-1\"\ntank = \"tank-1\"\nrate = \"500 mg/s\"\n\
         initial = {{ {initial} }}\n"
    );
    let config = parse(Path::new("t"), &text, &Overrides::default()).unwrap();
    let setup = config.plcs[0].robots[0].clone();
    let outlets = setup
        .feeders
        .iter()
        .map(|f| Outlet { setup: f.clone(), water: Water::new(f.tank.clone(), 1, 1, 1_500) })
        .collect();
    let memory = Machine::factory(&setup, 77, at(0));
    Machine { setup, outlets, memory, pending: None }
}

fn manual() -> Machine {
    machine("mode = \"manual\", portion_mg = 1500, interval = \"1h\"")
}

fn dose(sequence: u32, amount_mg: u32, token: u32) -> SlotBlock {
    SlotBlock {
        epoch: 77,
        sequence,
        op: SlotOp::Dose,
        outlet: 0,
        amount_mg,
        token,
        rate_mg_per_s: 0,
        expires_at_s: at(10_000).plc_s(),
        start_before_ms: i64::MAX,
    }
}

fn nop(sequence: u32) -> SlotBlock {
    SlotBlock { op: SlotOp::Nop, amount_mg: 0, ..dose(sequence, 0, 9) }
}

fn lines(effects: &[Effect]) -> Vec<Line> {
    let line = |e: &Effect| match e {
        Effect::Ledger(line) => Some(line.clone()),
        _ => None,
    };
    effects.iter().filter_map(line).collect()
}

fn slot(m: &Machine, now: Now) -> (u32, SlotState, u32, u32) {
    let slot = m.snapshot(now).slot.unwrap();
    (slot.last_sequence, slot.state, slot.reason, slot.dispensed_mg.unwrap())
}

#[test]
fn the_latch_is_durable_before_the_motor() {
    let mut m = manual();
    let effects = m.submit(dose(1, 1_000, 5), at(0));
    assert!(matches!(effects[..], [Effect::Keep, Effect::Ledger(_)]), "{effects:?}");
    assert_eq!(slot(&m, at(0)), (1, SlotState::Started, 0, 0));
    assert_eq!(slot(&m, at(1_000)), (1, SlotState::Started, 0, RATE));
    let effects = m.tick(at(2_000));
    assert_eq!(slot(&m, at(2_000)), (1, SlotState::Done, 0, 1_000));
    assert!(matches!(effects[..], [Effect::Ledger(_), Effect::Keep]), "{effects:?}");
}

#[test]
fn the_same_block_doses_once() {
    let mut m = manual();
    let mut all = Vec::new();
    for i in 0..50 {
        all.extend(m.submit(dose(1, 1_000, 5), at(i * 100)));
        all.extend(m.tick(at(i * 100 + 50)));
    }
    let starts = lines(&all).into_iter().filter(|l| l.event == "start").count();
    assert_eq!((starts, m.memory.outlets[0].total_mg), (1, 1_000));
}

#[test]
fn only_the_next_sequence_of_the_own_epoch_is_taken() {
    let mut m = manual();
    for wrong in [dose(0, 100, 1), dose(2, 100, 1), SlotBlock { epoch: 78, ..dose(1, 100, 1) }] {
        assert!(m.submit(wrong, at(0)).is_empty());
        assert_eq!(slot(&m, at(0)), (0, SlotState::Idle, 0, 0));
    }
    m.memory.last_sequence = u32::MAX;
    m.submit(dose(0, 100, 1), at(0));
    assert_eq!(slot(&m, at(0)).0, 0);
}

#[test]
fn a_fence_keeps_a_late_dose_from_ever_running() {
    let mut m = manual();
    m.submit(nop(1), at(0));
    assert_eq!(slot(&m, at(0)), (1, SlotState::Done, 0, 0));
    assert!(m.submit(dose(1, 1_000, 5), at(10)).is_empty());
    m.tick(at(60_000));
    assert_eq!(m.memory.outlets[0].total_mg, 0);
    assert_eq!(m.snapshot(at(0)).slot.unwrap().last_op, SlotOp::Nop);
}

#[test]
fn a_dose_behind_a_meal_waits_and_may_be_fenced_meanwhile() {
    let meal = "portion_mg = 1500, interval = \"1h\", first_meal_in = \"0s\"";
    let mut m = machine(meal);
    m.tick(at(0));
    assert!(m.memory.running.is_some());
    assert!(
        m.submit(dose(1, 500, 5), at(100)).iter().all(|e| matches!(e, Effect::Progress { .. }))
    );
    assert_eq!(slot(&m, at(100)).0, 0);
    let mut fenced = m.clone();
    fenced.submit(nop(1), at(200));
    assert_eq!(slot(&fenced, at(200)).1, SlotState::Done);
    m.tick(at(3_000));
    assert_eq!(slot(&m, at(3_000)).1, SlotState::Started);
    m.tick(at(4_000));
    assert_eq!(slot(&m, at(4_000)), (1, SlotState::Done, 0, 500));
    assert_eq!(m.memory.outlets[0].total_mg, 2_000);
}

#[test]
fn too_late_is_never() {
    let mut m = manual();
    m.submit(dose(1, 1_000, 5), at(11_001));
    assert_eq!(slot(&m, at(11_001)), (1, SlotState::Expired, 0, 0));
    assert_eq!(m.memory.running, None);
}

#[test]
fn a_power_cut_ends_a_dose_with_what_was_measured() {
    let mut m = manual();
    m.submit(dose(1, 1_000, 5), at(0));
    let effects = m.power_up(300, at(900));
    assert_eq!(slot(&m, at(900)), (1, SlotState::Aborted, slot_reason::POWER_LOST, 300));
    assert_eq!(m.memory.outlets[0].total_mg, 300);
    assert_eq!(lines(&effects)[0].dispensed_mg, Some(300));
    m.tick(at(60_000));
    assert_eq!(m.memory.outlets[0].total_mg, 300, "resumed");
}

#[test]
fn a_hold_ends_a_dose_short_and_forbids_the_next() {
    let mut m = manual();
    m.submit(dose(1, 1_000, 5), at(0));
    m.set_hold(0, true);
    m.tick(at(1_000));
    assert_eq!(slot(&m, at(1_000)), (1, SlotState::Aborted, slot_reason::HELD, RATE));
    m.submit(dose(2, 1_000, 6), at(2_000));
    assert_eq!(slot(&m, at(2_000)), (2, SlotState::Rejected, slot_reason::HELD, 0));
    m.set_hold(0, false);
    m.submit(dose(3, 1_000, 7), at(3_000));
    assert_eq!(slot(&m, at(3_000)).1, SlotState::Started);
}

#[test]
fn what_forbids_a_dose_says_why() {
    type Spoil = fn(&mut Machine);
    let cases: [(u32, Spoil); 6] = [
        (slot_reason::JAM, |m| m.memory.fault = slot_reason::JAM),
        (slot_reason::FAULT, |m| m.memory.fault = 40),
        (slot_reason::LOCAL, |m| m.memory.local = true),
        (slot_reason::HOPPER_EMPTY, |m| m.memory.hopper_mg = 0),
        (slot_reason::DAILY_CAP, |m| m.memory.outlets[0].config.daily_cap_mg = Some(999)),
        (slot_reason::OFF, |m| m.memory.outlets[0].config.mode = 3),
    ];
    for (reason, spoil) in cases {
        let mut m = manual();
        spoil(&mut m);
        m.submit(dose(1, 1_000, 5), at(0));
        assert_eq!(slot(&m, at(0)), (1, SlotState::Rejected, reason, 0));
    }
}

#[test]
fn a_bad_probe_inhibits_like_a_low_one() {
    for shown in [(3_000, true), (9_000, false)] {
        let mut m = manual();
        m.memory.outlets[0].config.min_dissolved_oxygen_ug_per_l = Some(4_000);
        m.outlets[0].water.show(ReadingKind::DissolvedOxygenUgPerL, Some(shown));
        m.submit(dose(1, 1_000, 5), at(0));
        assert_eq!(slot(&m, at(0)).2, slot_reason::INTERLOCK);
    }
}

#[test]
fn an_emptying_hopper_ends_a_dose_with_what_was_left() {
    let mut m = manual();
    m.memory.hopper_mg = 700;
    m.submit(dose(1, 1_000, 5), at(0));
    m.tick(at(60_000));
    assert_eq!(slot(&m, at(60_000)), (1, SlotState::Aborted, slot_reason::HOPPER_EMPTY, 700));
    assert_eq!(m.memory.hopper_mg, 0);
}

/// Runs in steps and returns the starts of meals, s.
fn meals(m: &mut Machine, seconds: i64) -> Vec<i64> {
    let mut all = Vec::new();
    for s in 0..seconds {
        all.extend(m.tick(at(s * 1_000)));
    }
    let starts = lines(&all).into_iter().filter(|l| l.event == "start" && l.cause == "schedule");
    starts.map(|l| (l.plc_ms - at(0).plc_ms) / 1_000).collect()
}

#[test]
fn meals_come_by_interval_from_start_to_start() {
    let mut m = machine("portion_mg = 1500, interval = \"10min\", first_meal_in = \"100s\"");
    assert_eq!(meals(&mut m, 1_500), [100, 700, 1_300]);
    assert_eq!(m.memory.outlets[0].total_mg, 4_500);
    assert_eq!(m.snapshot(at(1_500_000)).feeders[0].next_dose_in_s, Some(400));
}

#[test]
fn meals_stay_inside_the_windows() {
    // It is noon.
    let mut m = machine(
        "portion_mg = 1500, interval = \"10min\", first_meal_in = \"0s\", windows = [\"12:15-12:40\"]",
    );
    assert_eq!(m.snapshot(at(0)).feeders[0].next_dose_in_s, Some(900));
    assert_eq!(meals(&mut m, 3_000), [900, 1_500, 2_100]);
}

#[test]
fn a_meal_beyond_the_cap_is_skipped_and_told() {
    let mut m = machine(
        "portion_mg = 1500, interval = \"10min\", first_meal_in = \"0s\", daily_cap_mg = 3500",
    );
    assert_eq!(meals(&mut m, 1_500), [0, 600]);
    let meal = m.snapshot(at(1_500_000)).feeders[0].meal.unwrap();
    assert_eq!(
        (meal.number, meal.state, meal.reason),
        (3, SlotState::Rejected, slot_reason::DAILY_CAP)
    );
    // The next day has a cap of its own.
    let mut next_day = m.clone();
    let effects = next_day.tick(at(43_200_000));
    assert_eq!(lines(&effects).len(), 1);
}

#[test]
fn a_meal_missed_while_held_is_not_caught_up() {
    let mut m = machine("portion_mg = 1500, interval = \"10min\", first_meal_in = \"100s\"");
    m.set_hold(0, true);
    assert!(meals(&mut m, 600).is_empty());
    m.set_hold(0, false);
    assert!(lines(&m.tick(at(601_000))).is_empty());
    assert_eq!(lines(&m.tick(at(700_000))).len(), 1);
}

#[test]
fn a_config_is_taken_on_its_base_only_and_resets_nothing() {
    let mut m = manual();
    m.submit(dose(1, 1_000, 5), at(0));
    m.tick(at(5_000));
    let base = m.read_config(0).unwrap();
    let mut new = base.config.valid().unwrap().clone();
    new.portion_mg = Some(2_000);
    let effects = m.write_config(0, &base, &new, &FieldSet::all()).unwrap();
    assert_eq!(effects, [Effect::Keep], "one fsync");
    let read = m.read_config(0).unwrap();
    assert_eq!(read.config.valid(), Some(&new));
    assert_eq!(read.revision, base.revision.map(|r| r + 1));
    assert_eq!(m.memory.outlets[0].today_mg, 1_000);
    let stale = m.write_config(0, &base, &new, &FieldSet::all());
    assert!(matches!(stale, Err(DriverError::Refused(_))));
}

/// Whatever is asked and whenever: what fell is what the totaliser, the ledger and the hopper say.
#[test]
fn no_feed_appears_or_vanishes() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut m = machine(
        "portion_mg = 700, interval = \"1min\", first_meal_in = \"5s\", hopper_mg = 400000",
    );
    let (mut all, mut ms) = (Vec::new(), 0);
    for _ in 0..20_000 {
        ms += random.i64(0..2_000);
        let next = m.memory.last_sequence.wrapping_add(1);
        all.extend(match random.u8(0..12) {
            0 | 1 => {
                let block = dose(next, random.u32(0..3_000), random.u32(..));
                m.submit(SlotBlock { expires_at_s: at(ms + 5_000).plc_s(), ..block }, at(ms))
            }
            2 => m.submit(nop(next), at(ms)),
            3 => m.set_hold(0, random.bool()),
            4 if random.u8(..) < 30 => {
                let measured = m.dispensed(at(ms));
                m.power_up(measured, at(ms))
            }
            5 if random.u8(..) < 30 => {
                m.memory.fault = if random.bool() { 2 } else { 0 };
                vec![Effect::Keep]
            }
            6 => {
                let base = m.read_config(0).unwrap();
                let mut new = base.config.valid().unwrap().clone();
                new.portion_mg = Some(random.i32(10..2_000));
                m.write_config(0, &base, &new, &FieldSet::all()).unwrap()
            }
            _ => m.tick(at(ms)),
        });
    }
    m.set_hold(0, true);
    all.extend(m.tick(at(ms)));
    let lines = lines(&all);
    let fell: u64 = lines.iter().filter_map(|l| l.dispensed_mg).map(u64::from).sum();
    assert_eq!(fell, m.memory.outlets[0].total_mg);
    assert_eq!(m.memory.hopper_mg, 400_000 - i64::try_from(fell).unwrap());
    let starts: Vec<_> = lines.iter().filter(|l| l.event == "start").map(|l| l.number).collect();
    let ends: Vec<_> = lines.iter().filter(|l| l.event == "end").map(|l| l.number).collect();
    assert_eq!(starts, ends);
    let commanded: Vec<_> = lines
        .iter()
        .filter(|l| l.event == "start" && l.cause == "command")
        .map(|l| l.seq)
        .collect();
    assert!(commanded.windows(2).all(|pair| pair[0] < pair[1]), "a sequence ran twice");
    assert!(commanded.len() > 20 && fell > 300_000, "{} {fell}", commanded.len());
}

/// A cut between the end in the log and the end in the memory: the log's end stands, once.
#[test]
fn an_end_that_was_logged_is_not_logged_again() {
    use super::shell::Shell;
    use super::store::{Clock, Store};

    let dir = tempfile::tempdir().unwrap();
    let text = "agent = \"farms/blue/agents/farm-pc\"\n[[plc]]\nname = \"sim-1\"\ndriver = \"sim\"\ntanks = 1\n";
    let config = parse(Path::new("t"), text, &Overrides::default()).unwrap();
    let up = || Shell::power_up(dir.path(), &config.plcs[0], 1, jiff::tz::TimeZone::UTC).unwrap();
    let mut shell = up();
    let now = shell.now();
    let machine = &mut shell.machines[0];
    let epoch = machine.memory.epoch;
    let block = SlotBlock { epoch, expires_at_s: u32::MAX, ..dose(1, 1_000, 5) };
    let effects = machine.submit(block, now);
    shell.perform(0, &effects).unwrap();
    let later = Now { plc_ms: now.plc_ms + 60_000, ..now };
    let ended = shell.machines[0].tick(later);
    let end = lines(&ended).remove(0);
    shell.store.log(&end).unwrap();
    drop(shell);

    for _ in 0..2 {
        let shell = up();
        let memory = &shell.machines[0].memory;
        assert_eq!((memory.state, memory.dispensed_mg), (SlotState::Done, 1_000));
        assert_eq!(memory.outlets[0].total_mg, 1_000);
    }
    let log = std::fs::read_to_string(dir.path().join("ledger.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
    let clock = Clock { boot_id: "another".into(), offset_ms: 5, latest_ms: 1 << 40 };
    let (mut store, _) = Store::open(dir.path(), "sim-1").unwrap();
    store.keep(std::iter::empty(), &clock).unwrap();
    assert!(up().now().plc_ms >= 1 << 40, "the PLC's clock goes on after a reboot");
}
