#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| reelfs::fuzzing::upload_answer(data));
