//! The content of the two files, and the console's Content Security Policy.
//!
//! The binary contains the files of this directory unchanged; there is no build step. The console is
//! assembled from its three parts, so that one response delivers the whole page. Its policy lists
//! the script and the style by hash, so that no injected script or style runs.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac_sha256::Hash;

use super::static_file::StaticFile;

const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<style>",
    include_str!("console.css"),
    "</style>\n",
    include_str!("console.html"),
    "<script type=\"module\">",
    include_str!("console.js"),
    "</script>\n",
);

/// The client module, `/longpoll.js`.
static MODULE: LazyLock<StaticFile> = LazyLock::new(|| {
    let text = include_str!("longpoll.js");
    StaticFile {
        content_type: "text/javascript; charset=utf-8",
        text,
        etag: etag(text),
        policy: None,
    }
});

/// The console page, `/`.
static CONSOLE: LazyLock<StaticFile> = LazyLock::new(|| StaticFile {
    content_type: "text/html; charset=utf-8",
    text: PAGE,
    etag: etag(PAGE),
    policy: Some(format!(
        "default-src 'none'; script-src 'self' '{}'; style-src '{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash_source("<script type=\"module\">", "</script>"),
        hash_source("<style>", "</style>")
    )),
});

/// The policy's hash source for the script or style between these tags of the page.
fn hash_source(begin: &str, end: &str) -> String {
    let content = PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    format!("sha256-{}", sha256(content.map_or("", |(content, _)| content)))
}

fn etag(text: &str) -> String {
    format!("\"{}\"", sha256(text))
}

/// The SHA-256 of a text, in Base64.
fn sha256(text: &str) -> String {
    BASE64.encode(Hash::hash(text.as_bytes()))
}

/// `/longpoll.js`; `None` in a build without the console.
#[must_use]
pub fn module() -> Option<&'static StaticFile> {
    Some(&MODULE)
}

/// The console page; `None` in a build without it.
#[must_use]
pub fn console() -> Option<&'static StaticFile> {
    Some(&CONSOLE)
}
