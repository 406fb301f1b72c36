//! The files themselves.
//!
//! They are in the binary as they are in this folder; nothing builds them. The console is one
//! page, put together here from its three parts, so that it arrives in one answer. Its policy
//! names script and style by their hashes: whatever else might get into the page does not run.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac_sha256::Hash;

use super::WebFile;

const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<style>",
    include_str!("console.css"),
    "</style>\n",
    include_str!("console.html"),
    "<script type=\"module\">",
    include_str!("console.js"),
    "</script>\n",
);

/// `/longpoll.js`.
pub static MODULE: LazyLock<WebFile> = LazyLock::new(|| {
    let text = include_str!("longpoll.js");
    WebFile { content_type: "text/javascript; charset=utf-8", text, etag: etag(text), policy: None }
});

/// `/`.
pub static CONSOLE: LazyLock<WebFile> = LazyLock::new(|| WebFile {
    content_type: "text/html; charset=utf-8",
    text: PAGE,
    etag: etag(PAGE),
    policy: Some(format!(
        "default-src 'none'; script-src 'self' '{}'; style-src '{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        source("<script type=\"module\">", "</script>"),
        source("<style>", "</style>")
    )),
});

/// How a policy names the page's script or style, which is between these tags.
fn source(begin: &str, end: &str) -> String {
    let inside = PAGE.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    format!("sha256-{}", hash(inside.map_or("", |(inside, _)| inside)))
}

fn etag(text: &str) -> String {
    format!("\"{}\"", hash(text))
}

fn hash(text: &str) -> String {
    BASE64.encode(Hash::hash(text.as_bytes()))
}
