//! Chooses what the proxy embeds: the built client, or a stub page when it was not built.
//!
//! `cargo build` must not need npm, so a missing client is not an error. It is told apart by
//! `ui/dist/index.html`, which Vite writes.
#![allow(clippy::print_stdout, reason = "cargo reads a build script's stdout")]

use std::path::PathBuf;

fn main() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dist = root.join("ui/dist");

    // Cargo re-runs this script at every build while a watched path is missing. An empty directory
    // that git ignores stops that; where it cannot be made, the only cost is those re-runs.
    let _ = std::fs::create_dir_all(&dist);

    let built = dist.join("index.html").is_file();
    let embedded = if built { dist } else { root.join("stub") };
    println!("cargo:rustc-env=PASAMANOS_WEB_CLIENT={}", embedded.display());
    println!("cargo:rustc-env=PASAMANOS_WEB_CLIENT_BUILT={built}");

    // A directory is watched with everything in it, so a rebuilt client is embedded again.
    println!("cargo:rerun-if-changed=ui/dist");
    println!("cargo:rerun-if-changed=stub");
    println!("cargo:rerun-if-changed=build.rs");
}
