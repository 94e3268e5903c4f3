//! Compiles the contract without protoc and writes its descriptor set for reflection.

use std::path::{Path, PathBuf};
use std::{env, error::Error, fs, io};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(".");
    println!("cargo:rerun-if-changed=pasamanos");
    let mut files = Vec::new();
    collect(&root.join("pasamanos"), &mut files)?;
    files.sort();

    let descriptors = protox::Compiler::new([root])?
        .include_source_info(true)
        .include_imports(true)
        .open_files(files)?
        .file_descriptor_set();
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;

    // Sorted maps: encoding a message twice gives the same bytes, which hashes rely on.
    // No transport constructors: one would be named like the rpc Connect.
    tonic_prost_build::configure()
        .build_transport(false)
        .bytes(".")
        .btree_map(".")
        .compile_fds(descriptors)?;
    Ok(())
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "proto") {
            files.push(path.strip_prefix(".").unwrap_or(&path).to_path_buf());
        }
    }
    Ok(())
}
