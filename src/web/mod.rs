//! The two files for browsers: `/longpoll.js`, the client module, and the console page at `/`,
//! which uses the module. The cargo feature `console` compiles them in.
//!
//! They help newcomers: the page shows what the server does, and the module spares each page its
//! own polling loop, which is easy to get wrong.

#[cfg(feature = "console")]
mod files;

/// A file as it is served.
#[derive(Debug)]
pub struct WebFile {
    pub content_type: &'static str,
    pub text: &'static str,
    /// A hash of the text, in quotes.
    pub etag: String,
    /// The `Content-Security-Policy`: what the page may load and run.
    pub policy: Option<String>,
}

/// `/longpoll.js`; `None` in a build without the console.
#[must_use]
pub fn module() -> Option<&'static WebFile> {
    #[cfg(feature = "console")]
    return Some(&files::MODULE);
    #[cfg(not(feature = "console"))]
    None
}

/// The console page; `None` in a build without it.
#[must_use]
pub fn console() -> Option<&'static WebFile> {
    #[cfg(feature = "console")]
    return Some(&files::CONSOLE);
    #[cfg(not(feature = "console"))]
    None
}
