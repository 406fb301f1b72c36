//! Guards the store of `src/store`: acknowledged events survive crashes, power cuts, full disks and
//! damage.

mod busy_directory;
mod clock;
mod crash;
mod damage;
mod double_faults;
mod faults;
mod fixture;
mod full_disk;
mod injected_faults;
mod rare_conditions;
mod repair;
mod restart;
mod salvage;
mod salvage_property;
mod shutdown;
