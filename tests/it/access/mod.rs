//! Guards the access rules of `src/access`: tokens, and pages of other origins.

mod origins;
mod tokens;
