//! What a restart, a restore or a mistaken peer must not make untrue.

use std::path::Path;
use std::time::Duration;

use pasamanos_proto::model::{CommandOrder, CommandState, Reason};
use tempfile::TempDir;

use crate::driver::Profile;
use crate::testing::{FEEDER, Fate, Peer, Rig, ScriptedPlc, config};

/// A value that was read before the PLC took the new one, and no reading since, is no proof that it
/// put the old one back.
#[tokio::test(start_paused = true)]
async fn p2_a_config_that_shows_late_and_could_not_be_read_is_not_told_as_reverted() {
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), true)).await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Slow(Duration::from_secs(1)), Fate::Answered].into();
    let order = rig.portion(1_200);
    peer.order(&order).await;
    peer.executing(&order.command).await;
    // It was read as old meanwhile, and cannot be read when it turns.
    peer.play(Duration::from_millis(300)).await;
    rig.plc.plc().readable = false;
    let doubt = peer.outcome(&order.command).await;
    assert_eq!(doubt.state, CommandState::Uncertain, "{doubt:?}");
    rig.plc.plc().readable = true;
    assert_eq!(peer.outcome(&order.command).await.state, CommandState::Applied);
}

/// Plain tags echo a number: given twice, the echo of one dose would prove another.
#[tokio::test(start_paused = true)]
async fn p3_plain_tags_are_never_given_a_sequence_twice() {
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), false)).await;
    let mut peer = rig.open().await;
    for _ in 0..2 {
        for _ in 0..2 {
            let dose = rig.feed(1_000);
            peer.order(&dose).await;
            assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
        }
        rig.restart().await;
        peer = rig.open().await;
    }
    let given: Vec<_> = rig.plc.plc().arrived.iter().map(|b| b.sequence).collect();
    assert_eq!(given, [1, 2, 3, 4]);
}

/// RULES 7.1: a server's mistake must not use up the numbers of the records.
#[tokio::test(start_paused = true)]
async fn p9_an_absurd_count_of_records_is_no_session_and_burns_no_number() {
    let mut rig = Rig::new().await;
    let mut peer = rig.session().await;
    peer.hello().await;
    peer.through = i64::MAX;
    peer.welcome(1).await;
    assert!(peer.frame().await.is_none(), "a session was opened on it");
    let mut peer = rig.open().await;
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    assert_eq!(peer.outcome(&dose.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(5)).await;
    assert!(!peer.records.is_empty());
    assert!(peer.records.iter().all(|r| r.sequence < 100), "{:?}", peer.records);
}

fn copy(from: &Path, to: &Path) {
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Ends the agent and waits until its database is one closed file.
async fn end(rig: &mut Rig) {
    rig.kill().await;
    while rig.dir.path().join("journal.db-wal").exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What a restart of the agent finds: the journal of `old`, if it was put back.
async fn put_back(rig: &mut Rig, old: &TempDir) {
    end(rig).await;
    for file in std::fs::read_dir(rig.dir.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    copy(old.path(), rig.dir.path());
    rig.start().await;
}

/// A copy of the journal as it is now.
async fn backup(rig: &mut Rig) -> TempDir {
    end(rig).await;
    let old = TempDir::new().unwrap();
    copy(rig.dir.path(), old.path());
    rig.start().await;
    old
}

async fn feed(rig: &mut Rig, peer: &mut Peer) -> CommandOrder {
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    let end = peer.outcome(&dose.command).await;
    assert_eq!(end.state, CommandState::Applied, "{end:?}");
    dose
}

/// A person confirms the config that the PLC runs, and lifts what lost memory holds by it.
async fn confirm(rig: &mut Rig, peer: &mut Peer) {
    let now = rig.plc.plc().feeder(FEEDER).config.valid().unwrap().clone();
    let confirmed = rig.update(&now, now.clone());
    peer.order(&confirmed).await;
    assert_eq!(peer.outcome(&confirmed.command).await.state, CommandState::Applied);
    // The hold bit goes with the next look.
    peer.play(Duration::from_secs(3)).await;
}

/// The same command once more, under a new number and limit, as a server gives it that forgot it.
fn again(rig: &mut Rig, lost: &CommandOrder) -> CommandOrder {
    let new = rig.feed(1_000);
    CommandOrder { number: new.number, start_before_ms: new.start_before_ms, ..lost.clone() }
}

/// Database and journal are put back, newer doses are journaled, and then somebody asks again for one
/// that ran: journal and PLC agree, and the PLC has forgotten it since.
#[tokio::test(start_paused = true)]
async fn p3_a_dose_that_only_the_plc_remembered_is_not_given_again() {
    for newer in [1, 9] {
        let mut rig = Rig::new().await;
        let old = backup(&mut rig).await;
        let mut peer = rig.open().await;
        let lost = feed(&mut rig, &mut peer).await;
        drop(peer);
        put_back(&mut rig, &old).await;
        let mut peer = rig.open().await;
        for _ in 0..newer {
            feed(&mut rig, &mut peer).await;
        }
        drop(peer);
        rig.restart().await;
        let mut peer = rig.open().await;
        let again = again(&mut rig, &lost);
        peer.order(&again).await;
        let end = peer.outcome(&lost.command).await;
        assert_eq!((end.state, end.reason), (CommandState::Applied, Reason::Unspecified));
        assert_eq!(rig.plc.plc().ran.len(), 1 + newer, "it was given again");
        // The slot is as free as before.
        feed(&mut rig, &mut peer).await;
        assert_eq!(rig.plc.plc().ran.len(), 2 + newer);
    }
}

/// As before, with more doses lost than the PLC keeps: nobody can tell which they were, so nobody is
/// fed by command until someone at the farm has looked.
#[tokio::test(start_paused = true)]
async fn p3_doses_that_nobody_remembers_stop_doses_until_someone_has_looked() {
    let mut rig = Rig::new().await;
    let old = backup(&mut rig).await;
    let mut peer = rig.open().await;
    let lost = feed(&mut rig, &mut peer).await;
    for _ in 0..8 {
        feed(&mut rig, &mut peer).await;
    }
    drop(peer);
    put_back(&mut rig, &old).await;
    for restarted in [false, true] {
        let mut peer = rig.open().await;
        let again = again(&mut rig, &lost);
        peer.order(&again).await;
        let end = peer.outcome(&lost.command).await;
        if !restarted {
            assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::JournalNotWhole));
        }
        let new = rig.feed(1_000);
        peer.order(&new).await;
        let end = peer.outcome(&new.command).await;
        assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::JournalNotWhole));
        peer.play(Duration::from_secs(3)).await;
        let blocks = &peer.feeders[FEEDER].status.as_ref().unwrap().blocks;
        assert!(blocks.iter().any(|b| b.reason == "JOURNAL_NOT_WHOLE"), "{blocks:?}");
        assert_eq!(rig.plc.plc().ran.len(), 9);
        drop(peer);
        rig.restart().await;
    }
    rig.kill().await;
    crate::accept_gaps(rig.dir.path(), None).await.unwrap();
    rig.start().await;
    let mut peer = rig.open().await;
    feed(&mut rig, &mut peer).await;
    // Those that the PLC did tell of are known for all that.
    assert_eq!(rig.plc.plc().ran.len(), 10);
}

/// What was taken in once does not make what waits to be taken look unknown, however much came since.
#[tokio::test(start_paused = true)]
async fn p3_a_dose_that_waits_in_its_slot_is_no_gap() {
    let mut rig = Rig::new().await;
    let old = backup(&mut rig).await;
    let mut peer = rig.open().await;
    feed(&mut rig, &mut peer).await;
    drop(peer);
    put_back(&mut rig, &old).await;
    let mut peer = rig.open().await;
    for _ in 0..9 {
        feed(&mut rig, &mut peer).await;
    }
    // It is read many times before it is taken.
    rig.plc.plc().fates = [Fate::Slow(Duration::from_secs(4)), Fate::Answered].into();
    feed(&mut rig, &mut peer).await;
    feed(&mut rig, &mut peer).await;
    assert_eq!(rig.plc.plc().ran.len(), 12);
}

/// What was taken in of an epoch that is gone, or of sequences that the PLC has forgotten, hides nothing of
/// what it takes later.
#[tokio::test(start_paused = true)]
async fn p3_what_was_taken_in_once_hides_no_dose_after_the_plc_lost_its_memory() {
    for rolled_back in [false, true] {
        let mut rig = Rig::new().await;
        let old = backup(&mut rig).await;
        let mut peer = rig.open().await;
        feed(&mut rig, &mut peer).await;
        feed(&mut rig, &mut peer).await;
        drop(peer);
        put_back(&mut rig, &old).await;
        // It is taken in; then the PLC loses its memory, and a person confirms a config.
        let mut peer = rig.open().await;
        peer.play(Duration::from_secs(3)).await;
        if rolled_back {
            rig.plc.plc().roll_back();
            rig.plc.plc().roll_back();
        } else {
            rig.plc.plc().lose_memory();
        }
        rig.plc.plc().history.clear();
        peer.play(Duration::from_secs(3)).await;
        confirm(&mut rig, &mut peer).await;
        drop(peer);
        let old = backup(&mut rig).await;
        let mut peer = rig.open().await;
        let lost = feed(&mut rig, &mut peer).await;
        drop(peer);
        put_back(&mut rig, &old).await;
        let mut peer = rig.open().await;
        for _ in 0..9 {
            feed(&mut rig, &mut peer).await;
        }
        let again = again(&mut rig, &lost);
        peer.order(&again).await;
        peer.outcome(&lost.command).await;
        assert_eq!(rig.plc.plc().ran.len(), 12, "it was given again");
    }
}

/// The PLC lost its memory after the copy was made, and took doses since: those of its new epoch are
/// taken in too.
#[tokio::test(start_paused = true)]
async fn p3_a_dose_of_an_epoch_that_the_journal_never_saw_is_not_given_again() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    feed(&mut rig, &mut peer).await;
    drop(peer);
    let old = backup(&mut rig).await;
    let mut peer = rig.open().await;
    rig.plc.plc().lose_memory();
    peer.play(Duration::from_secs(3)).await;
    confirm(&mut rig, &mut peer).await;
    let lost = feed(&mut rig, &mut peer).await;
    drop(peer);
    put_back(&mut rig, &old).await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(3)).await;
    confirm(&mut rig, &mut peer).await;
    for _ in 0..9 {
        feed(&mut rig, &mut peer).await;
    }
    let again = again(&mut rig, &lost);
    peer.order(&again).await;
    peer.outcome(&lost.command).await;
    assert_eq!(rig.plc.plc().ran.len(), 11, "it was given again");
}

/// Plain tags show a number and no name: what went by it unknown to the journal is known to nobody.
#[tokio::test(start_paused = true)]
async fn p3_plain_tags_that_went_on_unknown_stop_doses_until_someone_has_looked() {
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    plc.plc().slot.last_sequence = 1;
    plc.plc().echoes = true;
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), false)).await;
    for looked in [false, true] {
        let mut peer = rig.open().await;
        let dose = rig.feed(1_000);
        peer.order(&dose).await;
        let end = peer.outcome(&dose.command).await;
        if looked {
            assert_eq!(end.state, CommandState::Applied, "{end:?}");
            return;
        }
        assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::JournalNotWhole));
        assert_eq!(rig.plc.plc().ran.len(), 0);
        drop(peer);
        rig.kill().await;
        crate::accept_gaps(rig.dir.path(), None).await.unwrap();
        rig.start().await;
    }
}

/// A write that was on its way when journal and database were put back takes the very sequence that the
/// next dose was given.
#[tokio::test(start_paused = true)]
async fn p3_a_dose_that_took_the_sequence_of_another_is_not_given_again() {
    let plc = ScriptedPlc::new(&[(FEEDER, config())]);
    let mut rig = Rig::on(plc.with(Profile::Block, Duration::from_secs(1), true)).await;
    let old = backup(&mut rig).await;
    let mut peer = rig.open().await;
    rig.plc.plc().fates =
        [Fate::Late(Duration::from_secs(5)), Fate::Slow(Duration::from_secs(6))].into();
    let lost = rig.feed(1_000);
    peer.order(&lost).await;
    peer.executing(&lost.command).await;
    peer.play(Duration::from_millis(100)).await;
    drop(peer);
    put_back(&mut rig, &old).await;
    let mut peer = rig.open().await;
    let other = rig.feed(1_000);
    peer.order(&other).await;
    assert_eq!(peer.outcome(&other.command).await.state, CommandState::Expired);
    rig.plc.plc().fates = [Fate::Answered].into();
    peer.play(Duration::from_secs(8)).await;
    assert_eq!(rig.plc.plc().ran.len(), 1);
    for _ in 0..9 {
        feed(&mut rig, &mut peer).await;
    }
    let before = rig.plc.plc().ran.len();
    let again = again(&mut rig, &lost);
    peer.order(&again).await;
    let end = peer.outcome(&lost.command).await;
    assert_eq!(rig.plc.plc().ran.len(), before, "it was given again: {end:?}");
}
