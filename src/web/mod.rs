//! The two files for browsers: `/longpoll.js`, the client module, and the console page at `/`,
//! which uses the module. The cargo feature `console` compiles them in.
//!
//! They help newcomers: the page shows what the server does, and the module spares each page its
//! own polling loop, which is easy to get wrong.

mod static_file;
#[cfg_attr(not(feature = "console"), path = "no_files.rs")]
mod files;

pub use files::{console, module};
pub use static_file::StaticFile;
