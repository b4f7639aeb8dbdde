#![no_main]

libfuzzer_sys::fuzz_target!(|input: amy_fuzz::round_trip::Input| amy_fuzz::round_trip::run(input));
