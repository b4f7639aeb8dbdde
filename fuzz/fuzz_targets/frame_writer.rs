#![no_main]

libfuzzer_sys::fuzz_target!(|input: amy_fuzz::frame_writer::Input| amy_fuzz::frame_writer::run(
    input
));
