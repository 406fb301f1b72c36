//! The access rules of a server: origins and tokens together.

use std::io;
use std::sync::Arc;

use super::origins::{AllowedOrigin, OriginPolicy};
use super::tokens::{RequiredRight, Token, TokenFile, TokenReload};
use crate::config::Config;
use crate::conn::Conn;
use crate::http::RequestHead;
use crate::problem::Problem;

/// The access rules of a server.
pub struct Access {
    origins: OriginPolicy,
    tokens: Option<TokenFile>,
}

/// The result of the access checks for a request.
#[derive(Default, Clone)]
pub struct Grant {
    /// `None` without `--tokens`, or for a request that needs no token.
    pub token: Option<Arc<Token>>,
    /// The origin whose pages may read the response (CORS).
    pub allowed_origin: Option<AllowedOrigin>,
}

impl Access {
    /// Creates the rules of a configuration and reads its token file.
    ///
    /// # Errors
    /// When the token file cannot be read or has an invalid line, which the error names.
    pub fn open(config: &Config) -> io::Result<Access> {
        Ok(Access {
            origins: OriginPolicy::new(config),
            tokens: config.tokens.as_deref().map(TokenFile::open).transpose()?,
        })
    }

    /// Checks `Host`, `Origin` and `Sec-Fetch-Site`. Returns the origin whose pages may read the
    /// response, if it is not the server's own.
    ///
    /// # Errors
    /// `403`, naming the flag that would allow the request.
    pub fn check_origin(
        &self,
        head: &RequestHead,
        conn: &Conn,
    ) -> Result<Option<AllowedOrigin>, Problem> {
        self.origins.check(head, conn)
    }

    /// Finds the token of a request and checks that it has the required right. Without `--tokens`
    /// every request is allowed.
    ///
    /// # Errors
    /// `401` without a known token, `403` when the token lacks the right for one of the topics.
    pub fn authorize(
        &self,
        head: &RequestHead,
        required: impl FnOnce() -> Option<RequiredRight>,
    ) -> Result<Option<Arc<Token>>, Problem> {
        match &self.tokens {
            None => Ok(None),
            Some(tokens) => match required() {
                None => Ok(None),
                Some(required) => tokens.authorize(head, &required).map(Some),
            },
        }
    }

    /// Checks again that a token is still known and has the required right.
    ///
    /// # Errors
    /// As [`Access::authorize`].
    pub fn recheck(
        &self,
        grant: &Grant,
        required: impl FnOnce() -> RequiredRight,
    ) -> Result<(), Problem> {
        match (&self.tokens, &grant.token) {
            (Some(tokens), Some(token)) => tokens.recheck(token, &required()),
            _ => Ok(()),
        }
    }

    /// The number of known tokens, and whether they are outdated because the file's last change was
    /// invalid; `None` without `--tokens`.
    #[must_use]
    pub fn token_status(&self) -> Option<(usize, bool)> {
        self.tokens.as_ref().map(TokenFile::status)
    }

    /// Reloads the token file if it has changed; `None` if it has not.
    #[must_use]
    pub fn reload_tokens(&self) -> Option<TokenReload> {
        self.tokens.as_ref().and_then(TokenFile::reload)
    }
}
