//! Guards the configuration of `src/config`: flags, environment variables and listeners.

mod flags;
