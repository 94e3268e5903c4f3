//! Model to wire and back is identity, and no message whatever panics.

#![allow(clippy::unwrap_used, reason = "tests")]

use pasamanos_proto::model::{
    Action, AgentFrame, CommandOrder, FeedWindow, FeederConfig, FieldSet, Interlocks, Invalid,
    Mode, Mutation, PageRequest, RecordBatch, RequestId, StoredRecord, UpdateConfig, page_token,
};
use pasamanos_proto::pb;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message;

fn windows() -> impl Strategy<Value = Vec<FeedWindow>> {
    // Up to six windows that do not overlap: cut points of a day, taken in pairs.
    proptest::collection::btree_set(0u16..1440, 0..=6).prop_map(|cuts| {
        let cuts: Vec<_> = cuts.into_iter().collect();
        let pair = |p: &[u16]| FeedWindow { start_minute: p[0], end_minute: p[1] };
        cuts.chunks_exact(2).map(pair).collect()
    })
}

prop_compose! {
    fn config()(
        mode in prop_oneof![Just(Mode::Automatic), Just(Mode::Manual), Just(Mode::Off)],
        portion_mg in option::of(10i32..=5_000_000),
        interval_s in option::of(10u32..=86_400),
        windows in windows(),
        daily_cap_mg in option::of(10i32..=500_000_000),
        oxygen in option::of(0i32..=50_000),
        saturation in option::of(0i32..=3_000),
        temperature in option::of(-5_000i32..=60_000),
    ) -> FeederConfig {
        let interlocks = Interlocks {
            min_dissolved_oxygen_ug_per_l: oxygen,
            min_oxygen_saturation_permille: saturation,
            max_water_temperature_millicelsius: temperature,
        };
        FeederConfig { mode, portion_mg, interval_s, windows, daily_cap_mg, interlocks }
    }
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (config(), config()).prop_map(|(base, new)| Action::UpdateConfig {
            base: base.into(),
            new,
            fields: FieldSet::all(),
        }),
        (10i32..=5_000_000).prop_map(|portion_mg| Action::FeedNow { portion_mg }),
        Just(Action::Hold),
        Just(Action::Resume),
        (1u32..).prop_map(|fault_code| Action::ResetFault { fault_code }),
    ]
}

proptest! {
    #[test]
    fn a_config_survives_the_wire(config in config()) {
        let wire = pb::FeederConfig::from(&config).encode_to_vec();
        let back = FeederConfig::try_from(pb::FeederConfig::decode(&wire[..]).unwrap());
        prop_assert_eq!(back, Ok(config));
    }

    #[test]
    fn an_order_survives_the_wire_and_another_body_is_refused(action in action(), other in action()) {
        let feeder = "feeder-1".parse().unwrap();
        let order = CommandOrder {
            command: "farms/norte/commands/0191d7a2-7c4e-7b1a-9f3e-2b8f6d0c5a11".parse().unwrap(),
            body_hash: action.body_hash(&feeder),
            feeder,
            number: 7,
            boot_id: "boot".into(),
            start_before_ms: 12,
            author: "operator".into(),
            note: pasamanos_proto::model::note("more").unwrap(),
            action,
        };
        let mut wire = pb::CommandFrame::from(order.clone());
        prop_assert_eq!(CommandOrder::try_from(wire.clone()), Ok(order.clone()));
        if other != order.action {
            wire.action = Some((&other).into());
            prop_assert!(CommandOrder::try_from(wire).is_err());
        }
    }

    #[test]
    fn a_merge_changes_the_masked_fields_and_no_other(a in config(), b in config(), n in 0usize..=8) {
        let fields: FieldSet = pasamanos_proto::model::ConfigField::ALL.into_iter().take(n).collect();
        let merged = a.merged(&b, &fields);
        for field in merged.diff(&a).iter() {
            prop_assert!(fields.contains(field));
        }
        for field in fields.iter() {
            prop_assert!(!merged.diff(&b).contains(field));
        }
    }

    #[test]
    fn no_bytes_panic(bytes in vec(any::<u8>(), 0..512)) {
        if let Ok(m) = pb::ConnectRequest::decode(&bytes[..]) {
            let _ = AgentFrame::try_from(m);
        }
        if let Ok(m) = pb::CommandFrame::decode(&bytes[..]) {
            let _ = CommandOrder::try_from(m);
        }
        if let Ok(m) = pb::UpdateFeederConfigRequest::decode(&bytes[..]) {
            let _ = Mutation::try_from(m);
        }
        if let Ok(m) = pb::FeedNowRequest::decode(&bytes[..]) {
            let _ = Mutation::try_from(m);
        }
        if let Ok(m) = pb::ResolveCommandRequest::decode(&bytes[..]) {
            let _ = Mutation::try_from(m);
        }
        if let Ok(m) = pb::Records::decode(&bytes[..]) {
            let _ = RecordBatch::try_from(m);
        }
    }

    #[test]
    fn no_config_panics(
        mode in any::<i32>(), portion in option::of(any::<i32>()), cap in option::of(any::<i32>()),
        seconds in any::<i64>(), nanos in any::<i32>(),
        windows in vec((any::<i32>(), any::<i32>()), 0..9),
    ) {
        let window = |(start_minute, end_minute)| pb::FeedWindow { start_minute, end_minute };
        let wire = pb::FeederConfig {
            mode,
            portion_mg: portion,
            interval: Some(prost_types::Duration { seconds, nanos }),
            windows: windows.into_iter().map(window).collect(),
            daily_cap_mg: cap,
            interlocks: None,
        };
        if let Ok(config) = FeederConfig::try_from(wire.clone()) {
            prop_assert!(config.windows.len() <= 6);
            prop_assert!(config.portion_mg.is_none_or(|mg| (10..=5_000_000).contains(&mg)));
            let _ = config.meals_per_day();
        }
        let _ = pasamanos_proto::model::ObservedConfig::from(wire);
    }

    #[test]
    fn a_page_token_survives(after in "[ -~]{0,80}") {
        let page = PageRequest::parse(0, &page_token(&after), 50, 500).unwrap();
        prop_assert_eq!(page, PageRequest { size: 50, after });
    }

    #[test]
    fn no_page_token_panics(token in ".{0,40}", size in any::<i32>()) {
        let _ = PageRequest::parse(size, &token, 50, 500);
    }

    #[test]
    fn records_with_a_gap_or_another_hash_are_refused(n in 2i64..20, at in 1usize..19) {
        let content = |i: i64| {
            pb::record::Content::Dose(pb::Dose { planned_mg: i32::try_from(i).ok(), ..Default::default() })
        };
        let records: Vec<_> = (1..=n).map(|i| StoredRecord::new(i, content(i))).collect();
        let batch = RecordBatch { incarnation: "i".into(), records };
        let wire = pb::Records::from(batch.clone());
        prop_assert_eq!(RecordBatch::try_from(wire.clone()), Ok(batch));
        let at = at % wire.records.len();
        let mut gap = wire.clone();
        gap.records.remove(at);
        if at > 0 && at < gap.records.len() {
            prop_assert!(RecordBatch::try_from(gap).is_err());
        }
        let mut forged = wire;
        forged.records[at].content = Some(content(99));
        prop_assert!(RecordBatch::try_from(forged).is_err());
    }
}

fn update() -> pb::UpdateFeederConfigRequest {
    pb::UpdateFeederConfigRequest {
        name: "farms/norte/feeders/feeder-1".into(),
        config: Some(pb::FeederConfig { portion_mg: Some(1_600), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["portion_mg".into()] }),
        etag: "v1-0a".into(),
        request_id: "0191d7a2-7c4e-7b1a-9f3e-2b8f6d0c5a11".into(),
        ..Default::default()
    }
}

fn violations(m: pb::UpdateFeederConfigRequest) -> Vec<String> {
    let parsed: Result<Mutation<_, UpdateConfig>, Invalid> = m.try_into();
    parsed.err().map(|e| e.violations.into_iter().map(|v| v.field).collect()).unwrap_or_default()
}

#[test]
fn a_whole_request_is_read_and_a_bad_one_names_every_field() {
    assert!(violations(update()).is_empty());
    let bad = pb::UpdateFeederConfigRequest {
        name: "farms/norte".into(),
        config: Some(pb::FeederConfig { portion_mg: Some(-1), ..Default::default() }),
        etag: String::new(),
        request_id: "7".into(),
        ..update()
    };
    assert_eq!(violations(bad), ["name", "etag", "config.portion_mg", "request_id"]);
}

#[test]
fn what_the_mask_does_not_name_is_not_looked_at() {
    let mut m = update();
    m.config.as_mut().unwrap().daily_cap_mg = Some(-5);
    assert!(violations(m).is_empty());
}

#[test]
fn zero_negative_huge_and_missing_are_refused_at_the_field() {
    for portion in [Some(0), Some(-1), Some(i32::MIN), Some(5_000_001), Some(i32::MAX), None] {
        let mut m = update();
        m.config.as_mut().unwrap().portion_mg = portion;
        assert_eq!(violations(m), ["config.portion_mg"], "{portion:?}");
    }
}

#[test]
fn a_request_id_has_one_spelling() {
    let upper = "0191D7A2-7C4E-7B1A-9F3E-2B8F6D0C5A11";
    let id: RequestId = upper.parse().unwrap();
    assert_eq!(id.to_string(), upper.to_lowercase());
    assert!("0191d7a27c4e7b1a9f3e2b8f6d0c5a11".parse::<RequestId>().is_err());
}
