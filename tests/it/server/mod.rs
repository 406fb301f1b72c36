//! Guards the server of `src/server`: its caps, time-outs, drain, and how it survives faults of
//! clients and host.

mod bounds;
mod client_limit;
mod drain;
mod faults;
mod host_faults;
mod limits;
mod overload;
mod page_memory;
mod poll_cap;
