//! The one fuzz binary: libFuzzer's bytes go to the target their first byte names.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|data: &[u8]| -> Corpus { if fuzzing::run(data) { Corpus::Keep } else { Corpus::Reject } });
