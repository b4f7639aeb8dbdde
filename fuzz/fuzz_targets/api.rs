#![no_main]

libfuzzer_sys::fuzz_target!(|input: amy_fuzz::api::Input| amy_fuzz::api::run(input));
