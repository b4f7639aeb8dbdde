//! What the fuzz targets do, one module for each door of the library.
//!
//! Each has an `Input`, made from the fuzzer's bytes, and a function `run` that plays it against
//! the library and against a model so plain that reading it is enough, and panics where they differ.

#![forbid(unsafe_code)]

pub mod api;
pub mod frame_reader;
pub mod frame_writer;
pub mod line_reader;
pub mod round_trip;

mod reading;
mod scripted;
