//! The refusal of a transport that this build leaves out.

use crate::problem::{Cause, Problem};

/// A `501` that names the cargo feature.
pub fn not_built(feature: &str) -> Problem {
    let detail = format!("this build has no {feature} (a cargo feature); use a poll instead");
    Problem::new(Cause::NotBuilt, detail)
}
