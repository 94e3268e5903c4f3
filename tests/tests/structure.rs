//! The import rule, that every module says what it is, and that the tests which the rules name are
//! there. Reads the sources as text.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pasamanos_tests::paths::root;

fn sources(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code of a file: no comments, and nothing of its own tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    let lines = text.lines().map(|l| l.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// What a part of a crate must not name.
fn must_not(dir: &str, forbidden: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for path in sources(&root().join(dir)) {
        let code = code(&path);
        for word in forbidden {
            if code.contains(word) {
                broken.push(format!("{} names {word}", path.display()));
            }
        }
    }
    broken
}

#[test]
fn imports_point_one_way() {
    let domain = [
        "tonic::",
        "sqlx",
        "redis::",
        "SystemTime",
        "Instant::now",
        "tokio::",
        "crate::control",
        "crate::store",
        "crate::grpc",
        "crate::lease",
        "crate::bus",
    ];
    let control = [
        "tonic::",
        "sqlx",
        "redis::",
        "crate::store",
        "crate::lease",
        "crate::grpc",
        "SqliteStore",
        "RedisLeases",
        "MemoryLeases",
    ];
    let outside = ["crate::control", "crate::grpc", "crate::startup", "tonic::"];
    let rules: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("server/src/domain", &domain[..]),
        ("server/src/control", &control[..]),
        ("server/src/store", &outside[..]),
        ("server/src/lease", &outside[..]),
        ("server/src/bus", &outside[..]),
        (
            "server/src/grpc",
            &["sqlx", "redis::", "crate::store", "crate::lease", "SqliteStore"][..],
        ),
        ("proto/src", &["pasamanos_server", "pasamanos_agent", "SystemTime", "Instant"][..]),
        ("agent/src", &["pasamanos_server", "pasamanos_web_proxy"][..]),
        ("web-proxy/src", &["pasamanos_server", "pasamanos_agent", "pasamanos_proto", "prost"][..]),
        (
            "agent/src/driver",
            &["crate::session", "crate::executor", "crate::journal", "tonic::"][..],
        ),
    ]);
    let broken: Vec<_> = rules.iter().flat_map(|(dir, words)| must_not(dir, words)).collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_status_is_built_in_one_place() {
    let mut broken = Vec::new();
    for path in sources(&root().join("server/src")) {
        let allowed = path.ends_with("grpc/status.rs");
        let code = code(&path);
        let builds = [
            "Status::new(",
            "Status::internal(",
            "Status::invalid_argument(",
            "Status::unavailable(",
            "Status::with_error_details",
        ];
        if !allowed && builds.iter().any(|b| code.contains(b)) {
            broken.push(path);
        }
    }
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn every_module_says_what_it_is_and_stays_short() {
    let mut broken = Vec::new();
    for dir in [
        "proto/src",
        "server/src",
        "agent/src",
        "agent/tests/simulation",
        "web-proxy/src",
        "tests/src",
        "tests/tests",
    ] {
        for path in sources(&root().join(dir)) {
            let text = std::fs::read_to_string(&path).unwrap();
            if !text.starts_with("//!") {
                broken.push(format!("{}: no //!", path.display()));
            }
            let lines = text.lines().count();
            if lines > 800 {
                broken.push(format!("{}: {lines} lines", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Every rpc of our services declares who may call it: absent would mean denied.
#[test]
fn p12_every_rpc_declares_its_access() {
    use prost::Message as _;
    let set = prost_types::FileDescriptorSet::decode(pasamanos_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut rpcs = 0;
    for file in set.file.iter().filter(|f| f.package() == "pasamanos.v1") {
        let path = root().join("proto").join(file.name());
        let text = std::fs::read_to_string(path).unwrap();
        for service in &file.service {
            for method in &service.method {
                rpcs += 1;
                let rpc = text.split(&format!("rpc {}(", method.name())).nth(1).unwrap();
                let body = rpc.split('}').next().unwrap();
                assert!(body.contains("option (access) = {role: ROLE_"), "{}", method.name());
            }
        }
    }
    assert_eq!(rpcs, 16);
}

/// Every file below a directory with one of these endings, what is built or installed left out.
fn files(dir: &Path, endings: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.starts_with('.') && !["target", "node_modules"].contains(&name.as_str()) {
                found.extend(files(&path, endings));
            }
        } else if endings.iter().any(|end| name.ends_with(end)) {
            found.push(path);
        }
    }
    found
}

/// What stands between two marks, each time.
fn between<'a>(text: &'a str, open: &str, close: &str) -> Vec<&'a str> {
    let parts = text.split(open).skip(1);
    parts.filter_map(|part| part.split_once(close).map(|(inner, _)| inner)).collect()
}

/// The table of rules names tests that are there, and every rule has one or says that it has none.
#[test]
fn every_rule_names_tests_that_exist() {
    let all: Vec<_> = files(&root(), &[".rs", ".py", ".ts", ".tsx"]);
    let all: String = all.iter().map(|p| std::fs::read_to_string(p).unwrap()).collect();
    let table = std::fs::read_to_string(root().join("docs/rules.md")).unwrap();
    let (mut broken, mut rows, mut named) = (Vec::new(), 0, 0);
    for line in table.lines() {
        let cells: Vec<_> = line.split(" | ").collect();
        let rule = cells[0].trim_start_matches("| ");
        if !rule.starts_with(|c: char| c.is_ascii_digit()) || cells.len() < 4 {
            continue;
        }
        rows += 1;
        let tests = cells[cells.len() - 1];
        let code: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        let of_code = code.iter().filter(|name| name.contains('_') && !name.contains(['.', ' ']));
        let of_code: Vec<_> = of_code.filter(|n| **n == n.to_lowercase()).collect();
        let said = between(tests, "“", "”");
        for name in &of_code {
            let (rust, python) = (format!("fn {name}("), format!("def {name}("));
            if !all.contains(&rust) && !all.contains(&python) {
                broken.push(format!("{rule}: no test is named {name}"));
            }
        }
        for name in &said {
            if !all.contains(name) {
                broken.push(format!("{rule}: no test says “{name}”"));
            }
        }
        named += of_code.len() + said.len();
        if of_code.is_empty() && said.is_empty() && !tests.contains("**not ") {
            broken.push(format!("{rule}: no test, and it does not say so"));
        }
        for path in between(tests, "(", ")") {
            for path in path.split([',', ';', ' ']).filter(|p| p.contains('/') && p.contains('.')) {
                if !root().join(path).exists() {
                    broken.push(format!("{rule}: no file {path}"));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(rows > 60 && named > 150, "the table was not read: {rows} rows, {named} tests");
}
