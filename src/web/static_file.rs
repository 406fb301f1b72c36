//! A file as it is served.

/// A file that the binary contains.
#[derive(Debug)]
pub struct StaticFile {
    pub content_type: &'static str,
    pub text: &'static str,
    /// A hash of the text, in quotes.
    pub etag: String,
    /// The `Content-Security-Policy`: what the page may load and run.
    pub policy: Option<String>,
}
