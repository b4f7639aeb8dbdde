#![no_main]

libfuzzer_sys::fuzz_target!(
    |input: amy_fuzz::frame_reader::Input<'_>| amy_fuzz::frame_reader::run(input)
);
