//! Starting threads.
//!
//! Every thread has the same small stack, because each held poll occupies a thread, and thousands
//! are held.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::limits::THREAD_STACK_BYTES;

/// Starts a thread. The work is boxed because each type of closure that std's function takes adds a
/// kilobyte and a half to the binary.
///
/// # Errors
/// When the operating system refuses the thread.
pub fn start(name: &str, work: Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(THREAD_STACK_BYTES).spawn(work)
}

/// The error of a program that cannot start because a thread was refused.
pub fn too_few(error: &io::Error) -> io::Error {
    io::Error::other(format!("the system allows too few threads: {error}"))
}
