//! Stands for `framing/` in a build without streams: the framing type has no value, so every page
//! is a whole response.

use super::page_memory::PageMemory;
use crate::log::LogSlice;

pub use self::NoStreamFraming as StreamFraming;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NoStreamFraming {}

impl NoStreamFraming {
    pub fn part(self, _: &LogSlice, _: &mut PageMemory) -> (Vec<u8>, usize) {
        match self {}
    }
}
