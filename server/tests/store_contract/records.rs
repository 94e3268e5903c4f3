//! The history: every record once, in order, whatever comes twice or out of order.

use pasamanos_proto::model::{RecordBatch, StoredRecord};
use pasamanos_proto::pb;
use pasamanos_server::domain::ports::{Ingest, Ingested, Store};

use crate::kit::*;

async fn send(store: &dyn Store, epoch: i64, batch: RecordBatch) -> (i64, Vec<pb::Dose>) {
    match ingest(store, epoch, Ingest::Records(batch)).await {
        Ingested::Records { through, doses, .. } => (through, doses),
        other => panic!("{other:?}"),
    }
}

async fn history(store: &dyn Store) -> Vec<pb::Dose> {
    store.doses(&farm(), None, &page(1_000, "")).await.unwrap().items
}

pub async fn records_are_stored_exactly_once(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let (through, doses) = send(store, epoch, batch("incarnation-1", 1..=5)).await;
    assert_eq!((through, doses.len()), (5, 5));
    let (through, doses) = send(store, epoch, batch("incarnation-1", 1..=5)).await;
    assert_eq!((through, doses.len()), (5, 0), "a duplicate is acknowledged and not stored");
    let (through, doses) = send(store, epoch, batch("incarnation-1", 4..=8)).await;
    assert_eq!((through, doses.len()), (8, 3), "an overlap stores what is new");
    let history = history(store).await;
    assert_eq!(history.len(), 8);
    assert_eq!(history[0].dispensed_mg, Some(1_008), "newest first");
    let opened = open(store, hello(epoch)).await;
    assert_eq!(opened.records_through, 8);
}

pub async fn a_gap_is_not_stepped_over(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    send(store, epoch, batch("incarnation-1", 1..=2)).await;
    let (through, doses) = send(store, epoch, batch("incarnation-1", 5..=6)).await;
    assert_eq!((through, doses.len()), (2, 0));
    assert_eq!(history(store).await.len(), 2);
}

pub async fn another_content_under_one_key_is_refused(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    send(store, epoch, batch("incarnation-1", 1..=4)).await;
    let mut forged = batch("incarnation-1", 2..=7);
    forged.records[1] = StoredRecord::new(3, dose(99));
    let (through, doses) = send(store, epoch, forged).await;
    assert_eq!((through, doses.len()), (2, 0), "only what agrees is acknowledged");
    let history = history(store).await;
    assert_eq!(history.len(), 4);
    assert!(history.iter().all(|d| d.dispensed_mg != Some(1_099)), "nothing is overwritten");
}

pub async fn a_new_incarnation_begins_again(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    send(store, epoch, batch("incarnation-1", 1..=3)).await;
    let (through, doses) = send(store, epoch, batch("incarnation-2", 1..=2)).await;
    assert_eq!((through, doses.len()), (2, 2));
    let names: std::collections::BTreeSet<_> =
        history(store).await.into_iter().map(|d| d.name).collect();
    assert_eq!(names.len(), 5, "no name stands for two doses: {names:?}");
}

pub async fn doses_bear_resource_names(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let command = format!("farms/norte/commands/{}", request());
    let pb::record::Content::Dose(mut content) = dose(1) else { panic!("a dose") };
    content.command.clone_from(&command);
    let mut odd = content.clone();
    (odd.feeder, odd.command) = ("no slug!".into(), "farms/other/commands/x".into());
    let records = vec![
        StoredRecord::new(1, pb::record::Content::Dose(content)),
        StoredRecord::new(2, pb::record::Content::Dose(odd)),
        StoredRecord::new(
            3,
            pb::record::Content::Alarm(pb::AlarmRecord {
                reason: "DAILY_CAP".into(),
                ..Default::default()
            }),
        ),
    ];
    let (through, doses) =
        send(store, epoch, RecordBatch { incarnation: "incarnation-1".into(), records }).await;
    assert_eq!((through, doses.len()), (3, 2));
    let dose = &doses[0];
    assert!(dose.name.starts_with("farms/norte/doses/agent-1-") && dose.name.ends_with("-1"));
    assert_eq!(dose.feeder, "farms/norte/feeders/feeder-1");
    assert_eq!(dose.tank, "farms/norte/tanks/tank-1");
    assert_eq!(dose.robot, "farms/norte/robots/robot-1");
    assert_eq!((&dose.command, dose.local_date.as_str()), (&command, "2026-11-24"));
    assert_eq!((doses[1].feeder.as_str(), doses[1].command.as_str()), ("", ""), "no false names");
    let of_feeder = store.doses(&farm(), Some(&feeder_id(1)), &page(10, "")).await.unwrap();
    assert_eq!(of_feeder.items, std::slice::from_ref(dose));
}

pub async fn a_large_batch_is_stored_whole(store: &dyn Store) {
    let epoch = first_session(store).await.epoch;
    let (through, doses) = send(store, epoch, batch("incarnation-1", 1..=500)).await;
    assert_eq!((through, doses.len()), (500, 500));
    assert_eq!(history(store).await.len(), 500);
}
