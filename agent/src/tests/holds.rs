//! A hold overtakes everything and is a level.

use std::time::Duration;

use pasamanos_proto::model::{
    Action, CommandName, CommandReport, CommandState, FeederConfig, Reason,
};
use pasamanos_proto::pb;

use crate::driver::Profile;
use crate::testing::{FEEDER, Fate, OTHER, Peer, Rig, ScriptedPlc, config};

#[tokio::test(start_paused = true)]
async fn a_hold_ends_a_running_dose_and_what_waits_behind_it() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let running = rig.feed(5_000);
    peer.order(&running).await;
    peer.executing(&running.command).await;
    let waiting = rig.portion(1_200);
    peer.order(&waiting).await;
    peer.play(Duration::from_secs(2)).await;
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
    let overtaken = peer.outcome(&waiting.command).await;
    assert_eq!(
        (overtaken.state, overtaken.reason),
        (CommandState::Rejected, Reason::SupersededByHold)
    );
    let end = peer.outcome(&running.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Partial, Reason::Held));
    let fed = end.dispensed.unwrap().0;
    assert!((500..4_000).contains(&fed), "{fed}");
    peer.play(Duration::from_secs(5)).await;
    assert_eq!(peer.doses()[0].dispensed_mg, Some(fed.into()));
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    assert_eq!(status.state(), pb::FeederState::Held);
    assert_eq!(status.holds[0].source(), pb::HoldSource::Operator);
    assert_eq!(status.holds[0].author, "ana");
}

#[tokio::test(start_paused = true)]
async fn a_hold_fences_a_slot_that_was_not_consumed() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    // The dose will arrive in 4 s; the hold and the fence arrive at once.
    rig.plc.plc().fates = [Fate::Late(Duration::from_secs(4)), Fate::Answered].into();
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    peer.executing(&dose.command).await;
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::SupersededByHold));
    peer.play(Duration::from_secs(20)).await;
    assert!(rig.plc.plc().ran.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_written_again_until_a_resume_and_survives_a_restart() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
    rig.plc.plc().feeder(FEEDER).held = false;
    peer.play(Duration::from_secs(2)).await;
    assert!(rig.plc.plc().feeder(FEEDER).held, "written again");
    rig.kill().await;
    rig.plc.plc().feeder(FEEDER).held = false;
    rig.start().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(2)).await;
    assert!(rig.plc.plc().feeder(FEEDER).held, "written again after a restart");
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.reason, end.metadata["source"].as_str()), (Reason::FeederHeld, "OPERATOR"));
    let resume = rig.order(FEEDER, Action::Resume);
    peer.order(&resume).await;
    assert_eq!(peer.outcome(&resume.command).await.state, CommandState::Applied);
    peer.play(Duration::from_secs(3)).await;
    assert!(!rig.plc.plc().feeder(FEEDER).held);
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    assert_eq!((status.state(), status.holds.len()), (pb::FeederState::Ready, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_the_farm_is_lifted_only_there() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    rig.plc.plc().feeder(FEEDER).held = true;
    peer.play(Duration::from_secs(2)).await;
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    assert_eq!(status.holds[0].source(), pb::HoldSource::Farm);
    let resume = rig.order(FEEDER, Action::Resume);
    peer.order(&resume).await;
    assert_eq!(peer.outcome(&resume.command).await.reason, Reason::LocalHold);
    rig.plc.plc().feeder(FEEDER).held = false;
    peer.play(Duration::from_secs(2)).await;
    assert!(peer.feeders[FEEDER].status.clone().unwrap().holds.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_cannot_be_read_back_is_in_doubt_and_goes_on() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    {
        let mut plc = rig.plc.plc();
        plc.readable = false;
        plc.fates = [Fate::Lost].into();
    }
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    let end = peer.outcome(&hold.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Uncertain, Reason::PlcUnreachable));
    {
        let mut plc = rig.plc.plc();
        plc.readable = true;
        plc.fates = [Fate::Answered].into();
    }
    assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
}

#[tokio::test(start_paused = true)]
async fn without_a_journal_a_hold_holds_and_a_dose_is_refused() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    peer.play(Duration::from_secs(1)).await;
    rig.break_journal(true);
    let dose = rig.feed(1_000);
    peer.order(&dose).await;
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::Internal));
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    peer.play(Duration::from_secs(2)).await;
    let mut plc = rig.plc.plc();
    assert!(plc.feeder(FEEDER).held);
    assert!(plc.ran.is_empty());
}

/// RULES 5.5: the PLC's bit is the OR of all holds, and Resume lifts a person's only.
#[tokio::test(start_paused = true)]
async fn a_resume_leaves_the_bit_while_another_hold_stands() {
    let plc = ScriptedPlc::new(&[(FEEDER, config()), (OTHER, config())]);
    let mut rig = Rig::on(plc.with(Profile::Scalar, Duration::from_secs(1), true)).await;
    let mut peer = rig.open().await;
    // Half of a config was taken: the agent holds the feeder itself.
    rig.plc.plc().take_fields = Some(1);
    let both = FeederConfig { portion_mg: Some(1_200), interval_s: Some(1_800), ..config() };
    let mixed = rig.update(&config(), both);
    peer.order(&mixed).await;
    assert_eq!(peer.outcome(&mixed.command).await.reason, Reason::ConfigMixed);
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
    let resume = rig.order(FEEDER, Action::Resume);
    peer.order(&resume).await;
    peer.outcome(&resume.command).await;
    peer.play(Duration::from_secs(5)).await;
    assert!(rig.plc.plc().feeder(FEEDER).held, "the mixture must not feed");
    let status = peer.feeders[FEEDER].status.clone().unwrap();
    let sources: Vec<_> = status.holds.iter().map(pb::Hold::source).collect();
    assert_eq!(sources, [pb::HoldSource::ConfigMixed], "the person's is gone");
}

/// RULES 5.6.
#[tokio::test(start_paused = true)]
async fn a_reset_is_of_the_fault_that_was_seen_and_never_of_a_hold() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    peer.outcome(&hold.command).await;
    rig.plc.plc().faults = vec![7];
    let other = rig.order(FEEDER, Action::ResetFault { fault_code: 9 });
    peer.order(&other).await;
    let end = peer.outcome(&other.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::FaultChanged));
    assert_eq!(end.metadata["fault_code"], "7");
    assert_eq!(rig.plc.plc().faults, [7], "it stands");
    let seen = rig.order(FEEDER, Action::ResetFault { fault_code: 7 });
    peer.order(&seen).await;
    assert_eq!(peer.outcome(&seen.command).await.state, CommandState::Applied);
    assert_eq!(rig.plc.plc().faults, [0; 0]);
    peer.play(Duration::from_secs(3)).await;
    assert!(rig.plc.plc().feeder(FEEDER).held);
}

/// A resume and a reset that cannot be read back are in doubt, and what the PLC shows once it can be
/// read ends the doubt.
#[tokio::test(start_paused = true)]
async fn p2_a_resume_and_a_reset_in_doubt_are_settled_by_what_the_plc_shows() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    peer.outcome(&hold.command).await;
    rig.plc.plc().fates = [Fate::Lost].into();
    let resume = rig.order(FEEDER, Action::Resume);
    peer.order(&resume).await;
    peer.executing(&resume.command).await;
    rig.plc.plc().readable = false;
    let doubt = peer.outcome(&resume.command).await;
    assert_eq!((doubt.state, doubt.reason), (CommandState::Uncertain, Reason::PlcUnreachable));
    {
        let mut plc = rig.plc.plc();
        plc.fates = [Fate::Answered].into();
        plc.readable = true;
    }
    let end = peer.outcome(&resume.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::PlcRefused));
    peer.play(Duration::from_secs(5)).await;
    assert!(rig.plc.plc().feeder(FEEDER).held, "the hold stands");
    for (stands, end) in [(true, CommandState::Rejected), (false, CommandState::Applied)] {
        rig.plc.plc().faults = vec![7];
        rig.plc.plc().read_takes = (Duration::from_secs(1), Duration::ZERO);
        peer.play(Duration::from_secs(2)).await;
        let reset = rig.order(FEEDER, Action::ResetFault { fault_code: 7 });
        peer.order(&reset).await;
        peer.executing(&reset.command).await;
        rig.plc.plc().readable = false;
        assert_eq!(peer.outcome(&reset.command).await.state, CommandState::Uncertain);
        {
            let mut plc = rig.plc.plc();
            plc.faults = if stands { vec![7] } else { Vec::new() };
            plc.readable = true;
        }
        assert_eq!(peer.outcome(&reset.command).await.state, end);
    }
}

/// The server's database was put back: its numbers begin again below those of the hold.
#[tokio::test(start_paused = true)]
async fn p2_a_hold_of_an_older_session_overtakes_nothing_of_a_newer_one() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    let mut hold = rig.order(FEEDER, Action::Hold);
    hold.number = 50;
    peer.order(&hold).await;
    assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
    // In its own session it did.
    let before = rig.order(FEEDER, Action::Resume);
    peer.order(&before).await;
    let end = peer.outcome(&before.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::SupersededByHold));
    drop(peer);
    let mut peer = rig.open().await;
    let resume = rig.order(FEEDER, Action::Resume);
    peer.order(&resume).await;
    let end = peer.outcome(&resume.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Applied, Reason::Unspecified));
    let set = rig.portion(1_200);
    peer.order(&set).await;
    assert_eq!(peer.outcome(&set.command).await.state, CommandState::Applied);
}

/// And a hold that is numbered below what an older session began overtakes it all the same.
#[tokio::test(start_paused = true)]
async fn p3_a_hold_of_a_newer_session_overtakes_whatever_its_number() {
    let mut rig = Rig::new().await;
    let mut peer = rig.open().await;
    // However long the next session takes to come, no repeat of the dose arrives before the hold.
    rig.plc.plc().fates = [Fate::Late(Duration::from_mins(1)), Fate::Lost].into();
    let mut dose = rig.feed(1_000);
    dose.number = 50;
    peer.order(&dose).await;
    peer.executing(&dose.command).await;
    drop(peer);
    let mut peer = rig.open().await;
    rig.plc.plc().fates = [Fate::Answered].into();
    let hold = rig.order(FEEDER, Action::Hold);
    peer.order(&hold).await;
    assert_eq!(peer.outcome(&hold.command).await.state, CommandState::Applied);
    let end = peer.outcome(&dose.command).await;
    assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::SupersededByHold));
    peer.play(Duration::from_secs(90)).await;
    assert!(rig.plc.plc().ran.is_empty());
}

/// The end of a doubt, in this session or, since a robot that can be read again is introduced anew, a next.
async fn end_of(rig: &mut Rig, peer: &mut Peer, name: &CommandName) -> CommandReport {
    let ended = |r: &&CommandReport| {
        r.command == *name && r.state.is_terminal() && r.state != CommandState::Uncertain
    };
    for _ in 0..60 {
        if let Some(end) = peer.reports.iter().find(ended) {
            return end.clone();
        }
        if !peer.play(Duration::from_secs(1)).await {
            *peer = rig.session().await;
            let hello = peer.hello().await;
            if let Some(end) = hello.commands.iter().find(ended) {
                return end.clone();
            }
            let epoch = rig.next_epoch();
            peer.welcome(epoch).await;
        }
    }
    panic!("nobody told the end of {name}");
}

/// The same after a restart: the doubt ends by what is read, and not by the restart.
#[tokio::test(start_paused = true)]
async fn p2_a_resume_and_a_reset_in_doubt_are_settled_after_a_restart_too() {
    // Whether the resume was executed or not: the hold stands in the journal, is written again, and
    // only once that shows is the resume told as refused.
    for fate in [Fate::AnswerLost, Fate::Lost] {
        let mut rig = Rig::new().await;
        let mut peer = rig.open().await;
        let hold = rig.order(FEEDER, Action::Hold);
        peer.order(&hold).await;
        peer.outcome(&hold.command).await;
        {
            let mut plc = rig.plc.plc();
            plc.fates = [fate].into();
            plc.read_takes = (Duration::from_secs(1), Duration::ZERO);
        }
        let resume = rig.order(FEEDER, Action::Resume);
        peer.order(&resume).await;
        peer.executing(&resume.command).await;
        rig.plc.plc().readable = false;
        assert_eq!(peer.outcome(&resume.command).await.state, CommandState::Uncertain);
        rig.restart().await;
        let mut peer = rig.open().await;
        peer.play(Duration::from_secs(20)).await;
        assert!(peer.reports.iter().all(|r| r.command != resume.command), "nothing was read");
        {
            let mut plc = rig.plc.plc();
            plc.fates = [Fate::Answered].into();
            plc.readable = true;
        }
        let end = end_of(&mut rig, &mut peer, &resume.command).await;
        assert_eq!((end.state, end.reason), (CommandState::Rejected, Reason::PlcRefused));
        assert!(rig.plc.plc().feeder(FEEDER).held, "{fate:?}");
    }
    for (goes_after, end) in [
        (Some(Duration::ZERO), CommandState::Applied),
        // The reset waited before a PLC that was away.
        (Some(Duration::from_secs(2)), CommandState::Applied),
        (None, CommandState::Rejected),
    ] {
        let mut rig = Rig::new().await;
        rig.plc.plc().faults = vec![7];
        rig.plc.plc().read_takes = (Duration::from_secs(1), Duration::ZERO);
        let mut peer = rig.open().await;
        let reset = rig.order(FEEDER, Action::ResetFault { fault_code: 7 });
        peer.order(&reset).await;
        peer.executing(&reset.command).await;
        rig.plc.plc().readable = false;
        assert_eq!(peer.outcome(&reset.command).await.state, CommandState::Uncertain);
        rig.plc.plc().faults = vec![7];
        rig.restart().await;
        let mut peer = rig.open().await;
        rig.plc.plc().readable = true;
        if let Some(after) = goes_after {
            peer.play(after).await;
            rig.plc.plc().faults.clear();
        }
        let told = end_of(&mut rig, &mut peer, &reset.command).await;
        assert_eq!(told.state, end, "{goes_after:?}");
    }
}
