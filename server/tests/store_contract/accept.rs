//! Acceptance: ids, locks, numbers, epochs, the outbox, and how a command without an outcome ends.

use std::collections::BTreeSet;

use pasamanos_proto::model::{Action, CommandState, Reason, Resolve, Verdict};
use pasamanos_server::domain::ports::{
    AcceptError, NewCommand, NewResolution, Resolved, Store, StoreError,
};

use crate::kit::*;

pub async fn commands_are_numbered_within_their_feeder(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let mut orders = Vec::new();
    for (feeder, number) in [(1, 1), (3, 1), (1, 2), (3, 2), (1, 3)] {
        let accepted = accept(store, hold(feeder, epoch)).await;
        assert_eq!((accepted.number, accepted.state), (number, CommandState::Accepted));
        assert_eq!(stored(store, &accepted.name).await, accepted, "it reads back as answered");
        orders.push(accepted.order);
    }
    assert!(orders.is_sorted_by(|a, b| a < b), "{orders:?}");
}

pub async fn a_known_id_answers_with_its_command(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = feed(1, epoch);
    let first = accept(store, new.clone()).await;
    // The same id with another body, and after the session is gone: its command all the same.
    let other = NewCommand { action: Action::Hold, epoch: epoch + 5, ..new };
    match try_accept(store, other).await {
        Err(AcceptError::Known(known)) => assert_eq!(*known, first),
        other => panic!("{other:?}"),
    }
}

pub async fn one_hundred_parallel_calls_of_one_id_make_one_command(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = feed(1, epoch);
    let calls = (0..100).map(|_| try_accept(store, new.clone())).collect();
    let mut accepted = 0;
    for answer in together(calls).await {
        match answer {
            Ok(_) => accepted += 1,
            Err(AcceptError::Known(known)) => assert_eq!(known.name, new.name),
            Err(e) => panic!("{e:?}"),
        }
    }
    assert_eq!(accepted, 1);
    assert_eq!(store.commands(&farm(), None, &page(10, "")).await.unwrap().items.len(), 1);
}

pub async fn one_unsettled_dose_per_robot_under_fifty_parallel_calls(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    // Feeders 1 and 2 share a robot.
    let calls = (0..50).map(|i| try_accept(store, feed(1 + i % 2, epoch))).collect();
    let (mut won, mut named) = (Vec::new(), BTreeSet::new());
    for answer in together(calls).await {
        match answer {
            Ok(c) => won.push(c.name),
            Err(AcceptError::DoseUnsettled(name)) => drop(named.insert(name)),
            Err(e) => panic!("{e:?}"),
        }
    }
    assert_eq!(won.len(), 1);
    assert_eq!(named.into_iter().collect::<Vec<_>>(), won, "the refusal names the winner");
}

pub async fn a_dose_locks_its_robot_and_no_other(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let first = accept(store, feed(1, epoch)).await;
    accept(store, feed(3, epoch)).await;
    store.doubt(std::slice::from_ref(&first.name), Reason::AgentLost, NOW).await.unwrap();
    match try_accept(store, feed(2, epoch)).await {
        Err(AcceptError::DoseUnsettled(name)) => assert_eq!(name, first.name),
        other => panic!("a dose in doubt locks too: {other:?}"),
    }
}

pub async fn hold_resume_and_reset_pass_the_lock(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    accept(store, feed(1, epoch)).await;
    let update = update(store, 1, epoch, 2_000).await;
    accept(store, update).await;
    for action in [Action::Hold, Action::Resume, Action::ResetFault { fault_code: 7 }] {
        accept(store, new_command(1, epoch, action)).await;
    }
}

pub async fn a_stale_etag_is_refused(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let mut new = update(store, 1, epoch, 2_000).await;
    new.etag = Some("v9-00000000".into());
    assert!(matches!(try_accept(store, new).await, Err(AcceptError::EtagMismatch)));
    let mut new = update(store, 1, epoch, 2_000).await;
    new.etag = None;
    assert!(matches!(try_accept(store, new).await, Err(AcceptError::EtagMismatch)));
}

pub async fn two_parallel_updates_make_one_command(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let (a, b) = (update(store, 1, epoch, 2_000).await, update(store, 1, epoch, 3_000).await);
    let answers = together(vec![try_accept(store, a), try_accept(store, b)]).await;
    let won: Vec<_> = answers.iter().filter_map(|a| a.as_ref().ok()).collect();
    assert_eq!(won.len(), 1);
    for answer in &answers {
        if let Err(e) = answer {
            assert!(
                matches!(e, AcceptError::ConfigInFlight(name) if *name == won[0].name),
                "{e:?}"
            );
        }
    }
    // The winner is applied: what the loser saw is stale now.
    let loser = update(store, 1, epoch, 3_000).await;
    let mut applied = report(won[0], CommandState::Applied);
    let Action::UpdateConfig { new, .. } = &won[0].action else { panic!("an update") };
    applied.config = Some(pasamanos_proto::model::ObservedConfig::Valid(new.clone()));
    settle(store, epoch, applied).await;
    assert!(matches!(try_accept(store, loser).await, Err(AcceptError::EtagMismatch)));
}

pub async fn a_config_in_doubt_blocks_the_next(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let first = accept(store, update(store, 1, epoch, 2_000).await).await;
    assert_eq!(stored_feeder(store, 1).await.pending, Some(first.name.request));
    settle(store, epoch, report(&first, CommandState::Uncertain)).await;
    let next = update(store, 1, epoch, 3_000).await;
    assert!(matches!(
        try_accept(store, next.clone()).await,
        Err(AcceptError::ConfigInFlight(name)) if name == first.name
    ));
    settle(store, epoch, report(&first, CommandState::Rejected)).await;
    accept(store, next).await;
}

pub async fn another_epoch_is_refused(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    for wrong in [epoch - 1, epoch + 1] {
        let answer = try_accept(store, hold(1, wrong)).await;
        assert!(matches!(answer, Err(AcceptError::EpochChanged)), "{answer:?}");
    }
    let next = open(store, hello(epoch)).await.epoch;
    assert!(matches!(try_accept(store, hold(1, epoch)).await, Err(AcceptError::EpochChanged)));
    accept(store, hold(1, next)).await;
}

pub async fn an_unknown_feeder_is_not_found(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let answer = try_accept(store, hold(9, epoch)).await;
    assert!(matches!(answer, Err(AcceptError::Store(StoreError::NotFound))), "{answer:?}");
}

pub async fn all_or_none(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let good = hold(1, epoch);
    // The second is refused after the first was written.
    let refused = store.accept(vec![good.clone(), hold(3, epoch + 1)], PATIENCE).await;
    assert!(matches!(refused, Err(AcceptError::EpochChanged)), "{refused:?}");
    assert_eq!(store.command(&good.name).await.unwrap(), None, "nothing is left behind");
    let both = store.accept(vec![good, hold(3, epoch)], PATIENCE).await.unwrap();
    assert_eq!(both.iter().map(|c| c.number).collect::<Vec<_>>(), [1, 1]);
}

pub async fn the_outbox_holds_what_has_no_end(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let a = accept(store, hold(1, epoch)).await;
    let b = accept(store, hold(2, epoch)).await;
    let c = accept(store, hold(3, epoch)).await;
    settle(store, epoch, report(&b, CommandState::Applied)).await;
    let all = store.outbox(&agent(), epoch, 0).await.unwrap();
    assert_eq!(all, [a.clone(), c.clone()]);
    assert_eq!(store.outbox(&agent(), epoch, a.order).await.unwrap(), [c]);
    assert_eq!(store.outbox(&agent(), epoch + 1, 0).await.unwrap(), []);
}

pub async fn only_its_own_session_is_closed(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let new = accept(store, hold(1, epoch)).await;
    assert_eq!(store.close_session(&agent(), epoch - 1, NOW).await.unwrap(), []);
    let ended = store.close_session(&agent(), epoch, NOW + 5).await.unwrap();
    assert_eq!(ended.len(), 1);
    let ended = &ended[0];
    assert_eq!((ended.state, ended.reason), (CommandState::Uncertain, Reason::AgentLost));
    assert_eq!(ended.settled_ms, Some(NOW + 5));
    assert_eq!(stored(store, &new.name).await, *ended);
    assert_eq!(store.close_session(&agent(), epoch, NOW).await.unwrap(), [], "once");
}

pub async fn doubt_ends_what_has_no_end(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let (a, b) = (accept(store, hold(1, epoch)).await, accept(store, hold(3, epoch)).await);
    settle(store, epoch, report(&a, CommandState::Applied)).await;
    let names = [a.name.clone(), b.name.clone(), command_name(request())];
    let ended = store.doubt(&names, Reason::AgentLost, NOW).await.unwrap();
    assert_eq!(ended.iter().map(|c| &c.name).collect::<Vec<_>>(), [&b.name]);
    assert_eq!(stored(store, &a.name).await.state, CommandState::Applied);
}

pub async fn a_person_settles_a_dose_once(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    let said = |request, verdict, fed_mg| NewResolution {
        command: dose.name.clone(),
        request,
        what: Resolve { verdict, fed_mg },
        who: "ana".into(),
        note: "the hopper is lower".into(),
        now_ms: NOW + 9,
    };
    let (first, second) = (request(), request());
    let early = store.resolve(said(first, Verdict::Fed, None)).await.unwrap();
    assert!(matches!(early, Resolved::NotInDoubt(_)), "it may still end by itself");
    store.doubt(std::slice::from_ref(&dose.name), Reason::AgentLost, NOW).await.unwrap();
    for _ in 0..2 {
        let Resolved::Done(done) =
            store.resolve(said(first, Verdict::Fed, Some(900))).await.unwrap()
        else {
            panic!("the same request gives the same answer")
        };
        assert_eq!(done.state, CommandState::Uncertain, "it does not change the state");
        let resolution = done.resolution.as_ref().expect("a resolution");
        assert_eq!((resolution.what.fed_mg, resolution.time_ms), (Some(900), NOW + 9));
        assert_eq!(stored(store, &dose.name).await, *done);
    }
    let again = store.resolve(said(second, Verdict::NotFed, None)).await.unwrap();
    assert!(matches!(again, Resolved::NotInDoubt(_)), "another person settled it");
    // It unlocks the robot, and evidence still sets the true outcome beside it.
    accept(store, feed(2, epoch)).await;
    let (after, _, changed) = settle(store, epoch, report(&dose, CommandState::Applied)).await;
    assert!(changed && after.resolution.is_some() && after.state == CommandState::Applied);
    let nowhere =
        NewResolution { command: command_name(request()), ..said(request(), Verdict::Fed, None) };
    assert!(matches!(store.resolve(nowhere).await, Err(StoreError::NotFound)));
}

/// RULES 1.2: one id stands for one intention, whatever kind it is of.
pub async fn a_settlements_id_is_none_of_a_command_nor_the_reverse(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let dose = accept(store, feed(1, epoch)).await;
    let other = accept(store, hold(3, epoch)).await;
    store.doubt(std::slice::from_ref(&dose.name), Reason::AgentLost, NOW).await.unwrap();
    let said = |request| NewResolution {
        command: dose.name.clone(),
        request,
        what: Resolve { verdict: Verdict::NotFed, fed_mg: None },
        who: "ana".into(),
        note: "nothing fell".into(),
        now_ms: NOW,
    };
    for used in [dose.name.request, other.name.request] {
        let answer = store.resolve(said(used)).await.unwrap();
        assert!(matches!(&answer, Resolved::Reused(c) if c.name.request == used), "{answer:?}");
    }
    assert_eq!(stored(store, &dose.name).await.resolution, None, "nothing was recorded");
    let id = request();
    assert!(matches!(store.resolve(said(id)).await.unwrap(), Resolved::Done(_)));
    // The same body as the dose that it settled: still another intention.
    for new in [feed(1, epoch), hold(3, epoch)] {
        let new = NewCommand { name: command_name(id), ..new };
        let answer = try_accept(store, new).await;
        assert!(matches!(&answer, Err(AcceptError::Reused(n)) if *n == dose.name), "{answer:?}");
    }
    assert_eq!(store.command(&command_name(id)).await.unwrap(), None);
}
