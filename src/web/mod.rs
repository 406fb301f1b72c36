//! The two files that browsers get: `/longpoll.js`, the client module, and the console at `/`,
//! which uses it. The feature `console` puts them in.
//!
//! They are here for those who start: the page shows what the server does, and the module is the
//! loop that would otherwise be written anew, and wrong, on each page.

#[cfg(feature = "console")]
mod files;

/// A file as browsers get it.
#[derive(Debug)]
pub struct WebFile {
    pub content_type: &'static str,
    pub text: &'static str,
    /// Changes when the text does.
    pub etag: String,
    /// What the page may load and run.
    pub policy: Option<String>,
}

/// `/longpoll.js`, if this build has it.
#[must_use]
pub fn module() -> Option<&'static WebFile> {
    #[cfg(feature = "console")]
    return Some(&files::MODULE);
    #[cfg(not(feature = "console"))]
    None
}

/// The console, if this build has it.
#[must_use]
pub fn console() -> Option<&'static WebFile> {
    #[cfg(feature = "console")]
    return Some(&files::CONSOLE);
    #[cfg(not(feature = "console"))]
    None
}
