//! The tests, as one program: the real server on a real socket, what is sent and what comes back.

mod support;

mod polls;
