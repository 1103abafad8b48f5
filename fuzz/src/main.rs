//! The one fuzz binary: libFuzzer's bytes go to the target their first byte names, or only to the one that was asked for.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};

/// The first byte of the inputs that are wanted; `None` when all are.
static ONLY: LazyLock<Option<u8>> = LazyLock::new(|| {
    let name = std::env::var("REMPART_FUZZ_TARGET").ok()?;
    let target = fuzzing::TARGETS.iter().find(|target| target.name == name);
    Some(target.unwrap_or_else(|| panic!("no target is named {name}")).byte)
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let wanted = ONLY.is_none_or(|byte| data.first() == Some(&byte));
    if wanted && fuzzing::run(data) { Corpus::Keep } else { Corpus::Reject }
});
