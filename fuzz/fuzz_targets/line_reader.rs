#![no_main]

libfuzzer_sys::fuzz_target!(|input: amy_fuzz::line_reader::Input<'_>| amy_fuzz::line_reader::run(
    input
));
