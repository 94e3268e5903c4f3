//! Reads: pages, and the whole farm.

use pasamanos_proto::model::CommandState;
use pasamanos_proto::pb;
use pasamanos_server::domain::ports::{Ingest, NewFarm, Store, StoreError};

use crate::kit::*;

pub async fn commands_come_newest_first(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let mut names = Vec::new();
    for n in 0..7 {
        names.push(accept(store, hold(1 + n % 3, epoch)).await.name);
    }
    names.reverse();
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let p = store.commands(&farm(), None, &page(3, &after)).await.unwrap();
        seen.extend(p.items.into_iter().map(|c| c.name));
        match p.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen, names);
    let of_one = store.commands(&farm(), Some(&feeder_id(1)), &page(2, "")).await.unwrap();
    let rest = store
        .commands(&farm(), Some(&feeder_id(1)), &page(2, &of_one.next.unwrap()))
        .await
        .unwrap();
    let numbers = of_one.items.iter().chain(&rest.items).map(|c| c.number);
    assert_eq!(numbers.collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(rest.next, None);
}

pub async fn pages_stay_put_while_commands_are_added(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    for _ in 0..4 {
        accept(store, hold(1, epoch)).await;
    }
    let first = store.commands(&farm(), None, &page(2, "")).await.unwrap();
    accept(store, hold(1, epoch)).await;
    let second = store.commands(&farm(), None, &page(2, &first.next.unwrap())).await.unwrap();
    let numbers = first.items.iter().chain(&second.items).map(|c| c.number);
    assert_eq!(numbers.collect::<Vec<_>>(), [4, 3, 2, 1], "none twice, none left out");
}

pub async fn versions_come_newest_first(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    for portion in [1_100, 1_200, 1_300] {
        ingest(store, epoch, Ingest::Config(feeder_id(1), observed(portion))).await;
    }
    let first = store.versions(&feeder_name(1), &page(3, "")).await.unwrap();
    assert_eq!(first.items.iter().map(|v| v.number).collect::<Vec<_>>(), [4, 3, 2]);
    assert_eq!(first.items[0].config, observed(1_300));
    let last = store.versions(&feeder_name(1), &page(3, &first.next.unwrap())).await.unwrap();
    assert_eq!((last.items[0].number, last.next), (1, None));
}

pub async fn doses_come_newest_first_by_their_time(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    ingest(store, epoch, Ingest::Records(batch("incarnation-1", 1..=6))).await;
    let first = store.doses(&farm(), None, &page(2, "")).await.unwrap();
    // A backlog arrives: an older incarnation's doses of the same minutes.
    ingest(store, epoch, Ingest::Records(batch("incarnation-2", 1..=6))).await;
    let (mut amounts, mut after) = (Vec::new(), first.next.clone());
    amounts.extend(first.items);
    while let Some(key) = after {
        let p = store.doses(&farm(), None, &page(2, &key)).await.unwrap();
        amounts.extend(p.items);
        after = p.next;
    }
    let old: Vec<_> = amounts.iter().map(|d| d.dispensed_mg.unwrap()).collect();
    assert!(old.is_sorted_by(|a, b| a >= b), "{old:?}");
    let names: std::collections::BTreeSet<_> = amounts.iter().map(|d| &d.name).collect();
    assert_eq!(names.len(), amounts.len(), "none twice");
    assert!((6..=12).contains(&amounts.len()));
}

pub async fn a_whole_farm_is_read_in_one_piece(store: &dyn Store) {
    assert!(store.farm(&farm()).await.unwrap().is_none());
    let epoch = first_session(store).await.epoch;
    let open = accept(store, hold(1, epoch)).await;
    let done = accept(store, hold(2, epoch)).await;
    settle(store, epoch, report(&done, CommandState::Applied)).await;
    let mut records = batch("incarnation-1", 1..=2);
    let pb::record::Content::Dose(mut skipped) = dose(3) else { panic!("a dose") };
    skipped.outcome = pb::DoseOutcome::Skipped.into();
    let skipped = pb::record::Content::Dose(skipped);
    records.records.push(pasamanos_proto::model::StoredRecord::new(3, skipped));
    ingest(store, epoch, Ingest::Records(records)).await;
    let farm = store.farm(&farm()).await.unwrap().expect("the farm");
    assert_eq!(farm.farm.time_zone, "America/Santiago");
    assert_eq!((farm.agents.len(), farm.tanks.len()), (1, 3));
    assert_eq!((farm.robots.len(), farm.feeders.len()), (2, 3));
    assert_eq!(farm.unsettled, [open]);
    let last: Vec<_> = farm.last_doses.iter().map(|d| d.dispensed_mg).collect();
    assert_eq!(last, [Some(1_002)], "the last that fell");
}

pub async fn farms_are_added_once(store: &dyn Store) {
    let new = |name: &str| NewFarm {
        id: "sur-1".parse().unwrap(),
        display_name: name.into(),
        time_zone: "Asia/Jerusalem".into(),
        now_ms: NOW,
    };
    let orphan = store.add_agent("farms/sur-1/agents/agent-1".parse().unwrap(), NOW).await;
    assert!(matches!(orphan, Err(StoreError::NotFound)));
    assert!(store.add_farm(new("Sur")).await.unwrap());
    assert!(!store.add_farm(new("Otra")).await.unwrap());
    assert_eq!(store.farms().await.unwrap()[0].display_name, "Sur", "it changes nothing");
    let agent: pasamanos_proto::model::AgentName = "farms/sur-1/agents/agent-1".parse().unwrap();
    assert!(store.add_agent(agent.clone(), NOW).await.unwrap());
    assert!(!store.add_agent(agent, NOW).await.unwrap());
}
