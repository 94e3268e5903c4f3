//! The switches that the product's sources pass are the ones that are listed, and no other.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::path::Path;

use pasamanos_faults::{PLANTED, POINTS};

/// The names that a macro is called with under a directory.
fn called(dir: &Path, call: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            called(&path, call, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.extend(text.split(call).skip(1).map(|t| t.split('"').next().unwrap().to_owned()));
        }
    }
}

fn in_the_product(call: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    for program in ["agent/src", "server/src"] {
        called(&root.join(program), call, &mut found);
    }
    found
}

#[test]
fn every_crash_point_is_listed_and_passed() {
    let listed = POINTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(in_the_product("crash_point!(\""), listed);
}

#[test]
fn every_planted_bug_is_listed_and_in_the_product() {
    let listed = PLANTED.iter().map(|bug| bug.name.to_owned()).collect();
    assert_eq!(in_the_product("planted!(\""), listed);
}
