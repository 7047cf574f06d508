#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| reelfs::fuzzing::signed_url(data));
