//! Guards the systemd integration of `src/systemd.rs`: notifications, watchdog, socket activation,
//! upgrades.

mod service_manager;
#[cfg(feature = "store")]
mod upgrade;
