//! Guards the store of `src/store`: acknowledged events survive crashes, power cuts, full disks and
//! damage.

mod crash;
mod damage;
mod double_faults;
mod faults;
mod fixture;
mod injected_faults;
mod rare_conditions;
mod repair;
mod restart;
mod shutdown;
