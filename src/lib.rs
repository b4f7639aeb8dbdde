//! Readiness, timers and channels under one kind of id, for multi-threaded network servers.

#[forbid(unsafe_code)]
mod codec;
