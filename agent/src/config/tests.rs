//! What is wrong with `agent.toml` is said with its key and line; what is right expands as written.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::time::Duration;

use pasamanos_proto::model::{ConfigField, FieldAccess};

use super::*;
use crate::driver::describe;

const HEAD: &str = "agent = \"farms/blue/agents/farm-pc\"\n";

fn read(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("agent.toml"), text, &Overrides::default())
}

/// The error of this text, and that it stands on the line that ends in `# here`.
fn fault(body: &str) -> String {
    let text = format!("{HEAD}{body}");
    let error = read(&text).unwrap_err();
    let here = text.lines().position(|l| l.ends_with("# here")).map(|i| i + 1);
    assert_eq!(error.line(), here, "{error}");
    let shown = error.to_string();
    assert!(shown.starts_with(&format!("agent.toml:{}: ", here.unwrap())), "{shown}");
    shown
}

const PLC: &str = "[[plc]]\nname = \"plc-1\"\ndriver = \"opcua\"\nurl = \"opc.tcp://h:1/x\"\n";
const ROBOT: &str = "[[robot]]\nid = \"robot-1\"\nplc = \"plc-1\"\nnode = \"R1\"\n";

fn scalar(tags: &str) -> String {
    format!(
        "{PLC}{ROBOT}[[feeder]]\nid = \"feeder-1\"\nrobot = \"robot-1\"\ntank = \"tank-1\"\n\
         profile = \"scalar\"\n[feeder.tags]\n{tags}\n"
    )
}

#[test]
fn faults_name_key_and_line() {
    let cases = [
        ("sever = \"x\" # here", "sever"),
        ("server = 5 # here", "server"),
        ("server = \"host:1\" # here", "server"),
        (&format!("{PLC}pol = \"1s\" # here\n"), "pol"),
        (&format!("{PLC}poll = \"1\" # here\n"), "plc.poll"),
        (&format!("{PLC}poll = \"1ms\" # here\n"), "plc.poll"),
        (&format!("{PLC}subscribe = \"1ms\" # here\n"), "plc.subscribe"),
        (&format!("{PLC}subscribe = \"no\" # here\n"), "\"off\" or"),
        (&format!("{PLC}security = \"nome\" # here\n"), "security"),
        (&format!("{PLC}access = \"write\" # here\n"), "access"),
        (&format!("{PLC}user = \"u\" # here\n"), "password_file"),
        (&format!("{PLC}tanks = 3 # here\n"), "driver = \"sim\""),
        (&format!("{PLC}[[robot]]\nid = \"robot-1\"\nplc = \"plc-2\" # here\n"), "robot.plc"),
        (&format!("{PLC}{ROBOT}{ROBOT}").replacen("id = \"robot-1\"\nplc = \"plc-1\"\nnode = \"R1\"\n[[robot]]\nid = \"robot-1\"", "id = \"robot-1\"\nplc = \"plc-1\"\nnode = \"R1\"\n[[robot]]\nid = \"robot-1\" # here", 1), "stands twice"),
        (&scalar("portion = { node = \"x\", type = \"double\" } # here"), "needs a unit"),
        (&scalar("portion = { node = \"x\", type = \"double\", unit = \"lb\" } # here"), "mg, g, kg"),
        (&scalar("portion = { node = \"x\", type = \"double\", unit = \"pulses\" } # here"), "calibration"),
        (&scalar("portion = { node = \"x\", type = \"duble\", unit = \"g\" } # here"), "type"),
        (&scalar("portion = { node = \"x{n}\", type = \"double\", unit = \"g\" } # here"), "placeholder"),
        (&scalar("portions = { node = \"x\", type = \"double\", unit = \"g\" } # here"), "known are"),
        (&scalar("portion = { node = \"x\", tipe = \"double\", unit = \"g\" } # here"), "tipe"),
        (&scalar("portion = { type = \"double\", unit = \"g\" } # here"), "node or path"),
        (&scalar("mode = { node = \"x\", type = \"int32\" } # here"), "needs values"),
        (&scalar("mode = { node = \"x\", type = \"int32\", values = { auto = 1 } } # here"), "auto"),
        (&scalar("hold = { node = \"x\", type = \"bool\", bit = 1 } # here"), "bit"),
        (&scalar("config = { node = \"x\" } # here"), "profile"),
        ("[[plc]]\nname = \"sim-1\"\ndriver = \"sim\"\ncontrol = \"0.0.0.0:1\" # here\n", "loopback"),
        ("[[plc]]\nname = \"sim-1\"\ndriver = \"sim\"\nzone = \"Mars/Base\" # here\n", "IANA"),
        ("[[plc]]\nname = \"sim-1\"\ndriver = \"sim\"\ntanks = 0 # here\n", "1 to 500"),
    ];
    for (body, part) in cases {
        let shown = fault(body);
        assert!(shown.contains(part), "{part:?} is not in {shown:?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let shown =
        load(Path::new("/nowhere/agent.toml"), &Overrides::default()).unwrap_err().to_string();
    assert!(shown.starts_with("/nowhere/agent.toml: cannot be read"), "{shown}");
}

#[test]
fn overrides_win_over_the_file_and_it_over_the_defaults() {
    let sim = "[[plc]]\nname = \"sim-1\"\ndriver = \"sim\"\ntanks = 1\n";
    let config = read(&format!("{HEAD}{sim}")).unwrap();
    assert_eq!(config.server, "http://127.0.0.1:50051");
    assert_eq!(config.data_dir, Path::new("pasamanos-agent-data"));
    let given = Overrides {
        server: Some("https://other:1".into()),
        agent: Some("farms/red/agents/farm-pc".into()),
        data_dir: Some("/tmp/x".into()),
    };
    let config = parse(Path::new("a"), &format!("{HEAD}{sim}"), &given).unwrap();
    assert_eq!(config.server, "https://other:1");
    assert_eq!(config.agent.to_string(), "farms/red/agents/farm-pc");
    assert_eq!(config.data_dir, Path::new("/tmp/x"));
    let bad = Overrides { server: Some("nonsense".into()), ..Overrides::default() };
    let shown = parse(Path::new("a"), &format!("{HEAD}{sim}"), &bad).unwrap_err().to_string();
    assert!(shown.contains("PASAMANOS_SERVER"), "{shown}");
}

#[test]
fn the_example_expands() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/agent.example.toml");
    let config = load(&path, &Overrides::default()).unwrap();
    let plc = &config.plcs[0];
    assert_eq!(plc.access, Access::ReadOnly);
    let ids: Vec<_> =
        plc.robots.iter().flat_map(|r| &r.feeders).map(|f| f.id.to_string()).collect();
    assert_eq!(ids, ["feeder-r1", "feeder-r2", "feeder-r3", "pond-1", "pond-2", "pond-3"]);
    let third = &plc.robots[2].feeders[0];
    assert_eq!(
        (third.tank_name.as_str(), third.limits.portion_max_mg),
        ("Quarantine tank", Some(5_000))
    );
    assert_eq!(plc.robots[1].feeders[0].limits.portion_max_mg, Some(15_000));
    let pond = &plc.robots[5];
    assert_eq!(pond.dwell, Duration::from_millis(300));
    let portion = &pond.feeders[0].tags[&TagName::Portion];
    assert_eq!(portion.address.to_string(), "urn:feedlab:plc|F03.Portion");
    // 1.5 g
    assert!((portion.scaled(1.5) - 1_500.0).abs() < 1e-9);
    // Read-only until someone says otherwise: nothing is offered.
    let described = describe::feeders(plc);
    assert_eq!(described[3].capabilities.field(ConfigField::Portion).access, FieldAccess::ReadOnly);
    assert_eq!(described[3].capabilities.field(ConfigField::Windows).access, FieldAccess::Absent);
    assert!(!described[3].capabilities.hold);
}

#[test]
fn the_demo_has_a_first_feeder_with_room_at_any_instant() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/agent.demo.toml");
    let config = load(&path, &Overrides::default()).unwrap();
    let plc = &config.plcs[0];
    assert_eq!(plc.access, Access::ReadWrite);
    let mut feeders: Vec<_> = plc.robots.iter().flat_map(|r| &r.feeders).collect();
    feeders.sort_by_key(|f| f.id.to_string());
    let first = &feeders[0].initial.as_ref().unwrap().config;
    assert!(first.windows.is_empty());
    let meals = first.meals_per_day().unwrap();
    let more = i64::from(meals) * i64::from(first.portion_mg.unwrap() + 100);
    assert!(more + 100_000 < i64::from(first.daily_cap_mg.unwrap()));
    assert_eq!(100 % feeders[0].limits.portion_step_mg.unwrap(), 0);
    assert!(plc.robots.iter().any(|r| r.feeders.len() == 1 && r.feeders[0].id == feeders[0].id));
    // Every config is one that the rules allow.
    for feeder in feeders {
        let config = &feeder.initial.as_ref().unwrap().config;
        let day =
            config.meals_per_day().unwrap() * u32::try_from(config.portion_mg.unwrap()).unwrap();
        assert!(i64::from(day) <= i64::from(config.daily_cap_mg.unwrap()), "{}", feeder.id);
        assert!(
            feeder.limits.dispensing_s(config.portion_mg.unwrap()) < config.interval_s.unwrap()
        );
        assert_eq!(config.portion_mg.unwrap() % feeder.limits.portion_step_mg.unwrap(), 0);
    }
}

#[test]
fn a_simulated_farm_may_be_large_or_written_out() {
    let sim = "[[plc]]\nname = \"sim-1\"\ndriver = \"sim\"\ntanks = 50\ntanks_per_robot = 3\n";
    let config = read(&format!("{HEAD}{sim}")).unwrap();
    let robots = &config.plcs[0].robots;
    assert_eq!(robots.iter().map(|r| r.feeders.len()).sum::<usize>(), 50);
    assert_eq!((robots[0].feeders.len(), robots[1].feeders.len()), (1, 3));
    assert_eq!(robots[1].feeders[2].outlet, 2);
    let own = format!(
        "{HEAD}[[plc]]\nname = \"sim-1\"\ndriver = \"sim\"\n\
         [[robot]]\nid = \"robot-x\"\nplc = \"sim-1\"\n\
         [[feeder]]\nid = \"feeder-x\"\nrobot = \"robot-x\"\ntank = \"tank-x\"\nrate = \"2 g/s\"\n\
         initial = {{ portion_mg = 2500, interval = \"1h\", windows = [\"06:00-20:30\"], mode = \"manual\" }}\n"
    );
    let config = read(&own).unwrap();
    let feeder = &config.plcs[0].robots[0].feeders[0];
    assert_eq!(feeder.limits.dispense_rate_mg_per_s, Some(2_000));
    let initial = feeder.initial.as_ref().unwrap();
    assert_eq!((initial.config.portion_mg, initial.config.interval_s), (Some(2_500), Some(3_600)));
    assert_eq!(initial.config.windows[0].end_minute, 20 * 60 + 30);
}

#[test]
fn a_real_slot_serves_one_feeder() {
    let two = format!(
        "{HEAD}{PLC}{ROBOT}\
         [[feeder]]\nid = \"feeder-1\"\nrobot = \"robot-1\"\ntank = \"tank-1\"\nprofile = \"block\"\n\
         [[feeder]]\nid = \"feeder-2\"\nrobot = \"robot-1\"\ntank = \"tank-2\"\nprofile = \"block\"\n"
    );
    let shown = read(&two).unwrap_err().to_string();
    assert!(shown.contains("cannot say which outlet"), "{shown}");
}

#[test]
fn a_later_entry_overrides_one_of_a_range_once() {
    let base = format!(
        "{HEAD}{PLC}[[robot]]\nid = \"robot-{{n}}\"\nn = \"1..4\"\nplc = \"plc-1\"\nnode = \"R{{n}}\"\n\
         [[template]]\nname = \"t\"\nid = \"feeder-{{n}}\"\nrobot = \"robot-{{n}}\"\ntank = \"tank-{{n}}\"\n\
         profile = \"block\"\n[[feeder]]\ntemplate = \"t\"\nn = \"1,3..4\"\n"
    );
    let over = "[[feeder]]\ntemplate = \"t\"\nn = \"3\"\nportion_max_mg = 700\n";
    let config = read(&format!("{base}{over}")).unwrap();
    let robots = &config.plcs[0].robots;
    assert_eq!(robots[2].feeders[0].limits.portion_max_mg, Some(700));
    assert_eq!(robots[3].feeders[0].limits.portion_max_mg, None);
    assert!(robots[1].feeders.is_empty());
    let shown = read(&format!("{base}{over}{over}")).unwrap_err().to_string();
    assert!(shown.contains("stands twice"), "{shown}");
}

/// RULES 6.8: a desktop program that owns the config would write its own values back.
#[test]
fn a_config_that_the_desktop_program_owns_is_read_only() {
    let access = |owner: &str, profile: &str| {
        let text = format!(
            "{HEAD}{PLC}access = \"read_write\"\n{ROBOT}config_owner = \"{owner}\"\n\
             [[feeder]]\nid = \"feeder-1\"\nrobot = \"robot-1\"\ntank = \"tank-1\"\n{profile}\n"
        );
        let config = read(&text).unwrap();
        describe::feeders(&config.plcs[0])[0].capabilities.field(ConfigField::Portion).access
    };
    let scalar = "profile = \"scalar\"\n[feeder.tags]\n\
                  portion = { node = \"x\", type = \"double\", unit = \"g\" }";
    for profile in ["profile = \"block\"", scalar] {
        assert_eq!(access("plc", profile), FieldAccess::Writable, "{profile}");
        assert_eq!(access("desktop", profile), FieldAccess::ReadOnly, "{profile}");
    }
}
