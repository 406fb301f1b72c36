//! What browsers get: the console at `/`, and `/longpoll.js`.
//!
//! Browsers keep the files and ask each time whether they are still the same; after an update of
//! the server no old page talks to it.

use super::Reply;
use super::params::Params;
use crate::error::{Cause, Problem};
use crate::http::{Answer, Field, Head};
use crate::web::{self, File};

/// A file as it was asked for.
#[derive(Debug)]
pub struct Ask {
    file: &'static File,
    /// The browser has it as it is now.
    has_it: bool,
}

impl Ask {
    /// The client module.
    ///
    /// # Errors
    /// When this build has none.
    pub fn module(head: &Head) -> Result<Ask, Problem> {
        Ask::read(head, web::module().ok_or("this build has no /longpoll.js"))
    }

    /// The page.
    ///
    /// # Errors
    /// When there is none; says why.
    pub fn console(head: &Head, wanted: bool) -> Result<Ask, Problem> {
        let file = if wanted {
            web::console().ok_or("this build has no console")
        } else {
            Err("there is no console here: the server was started with --no-console")
        };
        Ask::read(head, file)
    }

    fn read(head: &Head, file: Result<&'static File, &str>) -> Result<Ask, Problem> {
        let file = file.map_err(|detail| Problem::new(Cause::NotFound, detail))?;
        Params::read(head.query(), &[])?;
        let mut known = head.all(Field::IfNoneMatch).flat_map(|list| list.split(','));
        // RFC 9110, section 13.1.2: the weak comparison.
        let same = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == file.etag;
        Ok(Ask { file, has_it: known.any(|tag| same(tag.trim())) })
    }

    /// The file, or word that the browser has it.
    pub(super) fn reply(&self) -> Reply {
        let File { content_type, text, etag, policy } = self.file;
        let answer = if self.has_it {
            Answer::not_modified()
        } else {
            Answer::new(200, content_type, text.as_bytes().to_vec())
        };
        // Kept, but asked about each time: after an update of the server no old page meets it.
        let answer = answer.with("Cache-Control", "no-cache").with("ETag", etag.as_str());
        Reply::Answer(match policy {
            Some(policy) => answer
                .with("Content-Security-Policy", policy.as_str())
                .with("Referrer-Policy", "no-referrer"),
            None => answer,
        })
    }
}
