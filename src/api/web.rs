//! What browsers get: the console at `/`, and `/longpoll.js`.
//!
//! Browsers keep the files and ask each time whether they are still the same; after an update of
//! the server no old page talks to it.

use super::Reply;
use super::params::QueryParams;
use crate::http::{HeaderName, RequestHead, Response};
use crate::problem::{Cause, Problem};
use crate::web::{self, WebFile};

/// A file as it was asked for.
#[derive(Debug)]
pub struct FileRequest {
    file: &'static WebFile,
    /// The browser has it as it is now.
    has_it: bool,
}

impl FileRequest {
    /// The client module.
    ///
    /// # Errors
    /// When this build has none.
    pub fn module(head: &RequestHead) -> Result<FileRequest, Problem> {
        FileRequest::read(head, web::module().ok_or("this build has no /longpoll.js"))
    }

    /// The page.
    ///
    /// # Errors
    /// When there is none; says why.
    pub fn console(head: &RequestHead, wanted: bool) -> Result<FileRequest, Problem> {
        let file = if wanted {
            web::console().ok_or("this build has no console")
        } else {
            Err("there is no console here: the server was started with --no-console")
        };
        FileRequest::read(head, file)
    }

    fn read(
        head: &RequestHead,
        file: Result<&'static WebFile, &str>,
    ) -> Result<FileRequest, Problem> {
        let file = file.map_err(|detail| Problem::new(Cause::NotFound, detail))?;
        QueryParams::read(head.query(), &[])?;
        let mut known = head.get_all(HeaderName::IfNoneMatch).flat_map(|list| list.split(','));
        // RFC 9110, section 13.1.2: the weak comparison.
        let same = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == file.etag;
        Ok(FileRequest { file, has_it: known.any(|tag| same(tag.trim())) })
    }

    /// The file, or word that the browser has it.
    pub(super) fn reply(&self) -> Reply {
        let WebFile { content_type, text, etag, policy } = self.file;
        let answer = if self.has_it {
            Response::not_modified()
        } else {
            Response::new(200, content_type, text.as_bytes().to_vec())
        };
        // Kept, but asked about each time: after an update of the server no old page meets it.
        let answer =
            answer.with_header("Cache-Control", "no-cache").with_header("ETag", etag.as_str());
        Reply::Response(match policy {
            Some(policy) => answer
                .with_header("Content-Security-Policy", policy.as_str())
                .with_header("Referrer-Policy", "no-referrer"),
            None => answer,
        })
    }
}
