//! Every input that was interesting once, on every change.

use std::collections::BTreeSet;
use std::path::Path;

use fuzzing::TARGETS;

/// Files of a folder, sorted; the test has no use for one it cannot read.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let listed = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn corpus() -> std::path::PathBuf {
    // Where the folder is now: a program out of a cache may have been built elsewhere.
    Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("corpus")
}

#[test]
fn the_corpus_finds_nothing() {
    for target in TARGETS {
        let inputs = files(&corpus().join(target.name));
        assert!(inputs.len() >= 5, "{}: only {} inputs", target.name, inputs.len());
        for input in inputs {
            let data = std::fs::read(&input).unwrap();
            assert_eq!(data.first(), Some(&target.byte), "{} is not for {}", input.display(), target.name);
            // A panic below tells what is wrong, this tells where.
            println!("{}", input.display());
            assert!(fuzzing::run(&data));
        }
    }
}

#[test]
fn the_corpus_stays_small() {
    let all: Vec<_> = files(&corpus()).iter().flat_map(|folder| files(folder)).collect();
    let bytes: u64 = all.iter().map(|file| file.metadata().unwrap().len()).sum();
    // As many as `cargo xtask fuzz --keep` fills a folder up to, and what has failed once.
    let most = TARGETS.len() * 40;
    assert!(all.len() <= most && bytes <= 1024 * 1024, "{} files, {bytes} bytes", all.len());
}

#[test]
fn every_folder_has_its_target() {
    let folders: BTreeSet<_> = files(&corpus())
        .iter()
        .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let targets: BTreeSet<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert_eq!(folders, targets);
    let bytes: BTreeSet<_> = TARGETS.iter().map(|target| target.byte).collect();
    assert_eq!(bytes.len(), TARGETS.len(), "two targets begin with the same byte");
}
