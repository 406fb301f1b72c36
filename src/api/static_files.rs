//! The two files for browsers: the console at `/`, and `/longpoll.js`.
//!
//! Browsers keep the files and ask each time whether they are unchanged, so after an update of the
//! server no old page talks to it.

use super::query_params::QueryParams;
use crate::http::{HeaderName, RequestHead, Response};
use crate::problem::{Cause, Problem};
use crate::web::{self, StaticFile};

/// A request for a file.
#[derive(Debug)]
pub struct FileRequest {
    file: &'static StaticFile,
    /// Whether the browser has the current version.
    is_cached: bool,
}

impl FileRequest {
    /// Parses a request for `/longpoll.js`.
    ///
    /// # Errors
    /// If this build has no such file.
    pub fn parse_module(head: &RequestHead) -> Result<FileRequest, Problem> {
        FileRequest::parse(head, web::module().ok_or("this build has no /longpoll.js"))
    }

    /// Parses a request for the console.
    ///
    /// # Errors
    /// If this build has no console, or `is_enabled` is false.
    pub fn parse_console(head: &RequestHead, is_enabled: bool) -> Result<FileRequest, Problem> {
        let file = if is_enabled {
            web::console().ok_or("this build has no console")
        } else {
            Err("there is no console here: the server was started with --no-console")
        };
        FileRequest::parse(head, file)
    }

    fn parse(
        head: &RequestHead,
        file: Result<&'static StaticFile, &str>,
    ) -> Result<FileRequest, Problem> {
        let file = file.map_err(|detail| Problem::new(Cause::NotFound, detail))?;
        QueryParams::parse(head.query(), &[])?;
        let mut tags = head.get_all(HeaderName::IfNoneMatch).flat_map(|list| list.split(','));
        // The weak comparison (RFC 9110, section 13.1.2).
        let matches = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == file.etag;
        Ok(FileRequest { file, is_cached: tags.any(|tag| matches(tag.trim())) })
    }

    /// The file, or a `304`.
    pub fn response(&self) -> Response {
        let StaticFile { content_type, text, etag, policy } = self.file;
        let response = if self.is_cached {
            Response::not_modified()
        } else {
            Response::new(200, content_type, text.as_bytes().to_vec())
        };
        let response =
            response.with_header("Cache-Control", "no-cache").with_header("ETag", etag.as_str());
        match policy {
            Some(policy) => response
                .with_header("Content-Security-Policy", policy.as_str())
                .with_header("Referrer-Policy", "no-referrer"),
            None => response,
        }
    }
}
