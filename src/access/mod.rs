//! Who may do what: other origins' pages by their origin, everybody by token.
//!
//! Two attackers are meant. A page that some browser on this network shows may send requests to
//! whatever that browser reaches, such as a server on localhost; [`Access::admit`] keeps it out. And
//! whoever finds the port may try; by [tokens](Token) each may do what theirs says.

mod digest;
mod origins;
mod tokens;

use std::io;
use std::sync::Arc;

use crate::config::Config;
use crate::conn::Conn;
use crate::http::RequestHead;
use crate::names::Pattern;
use crate::problem::Problem;
pub use origins::{AllowedOrigin, preflight};
pub use tokens::{Right, Rights, Token, TokenReload, new_token};

use origins::OriginPolicy;
use tokens::TokenFile;

/// The rules of one server.
pub struct Access {
    origins: OriginPolicy,
    tokens: Option<TokenFile>,
}

/// What a request was found to be allowed as.
#[derive(Default, Clone)]
pub struct Grant {
    /// By which token; none without `--tokens`, or where none is needed.
    pub token: Option<Arc<Token>>,
    /// Whose page may read the answer.
    pub cors: Option<AllowedOrigin>,
}

/// The right that a request needs, and for which topics.
pub type RequiredRight = (Right, Vec<Pattern>);

impl Access {
    /// Reads what the rules need.
    ///
    /// # Errors
    /// When the file of tokens cannot be read, or is wrong; names the line.
    pub fn open(config: &Config) -> io::Result<Access> {
        Ok(Access {
            origins: OriginPolicy::new(config),
            tokens: config.tokens.as_deref().map(TokenFile::open).transpose()?,
        })
    }

    /// Whether the page that asks, if it is one, may: says whose page may read the answer.
    ///
    /// # Errors
    /// A `403` that names the flag by which it would be let in.
    pub fn check_origin(
        &self,
        head: &RequestHead,
        conn: &Conn,
    ) -> Result<Option<AllowedOrigin>, Problem> {
        self.origins.check(head, conn)
    }

    /// The token by which a request is allowed what it needs. Without `--tokens` everybody may do
    /// everything.
    ///
    /// # Errors
    /// `401` without a token that is known, `403` when it does not have that right there.
    pub fn authorize(
        &self,
        head: &RequestHead,
        need: impl FnOnce() -> Option<RequiredRight>,
    ) -> Result<Option<Arc<Token>>, Problem> {
        match &self.tokens {
            None => Ok(None),
            Some(tokens) => match need() {
                None => Ok(None),
                Some(need) => tokens.authorize(head, &need).map(Some),
            },
        }
    }

    /// Whether what was granted before is still so.
    ///
    /// # Errors
    /// As [`Access::authorize`].
    pub fn recheck(
        &self,
        grant: &Grant,
        need: impl FnOnce() -> RequiredRight,
    ) -> Result<(), Problem> {
        match (&self.tokens, &grant.token) {
            (Some(tokens), Some(token)) => tokens.recheck(token, &need()),
            _ => Ok(()),
        }
    }

    /// How many tokens are known, and whether that is not what their file says now; nothing
    /// without `--tokens`.
    #[must_use]
    pub fn tokens(&self) -> Option<(usize, bool)> {
        self.tokens.as_ref().map(TokenFile::state)
    }

    /// Reads the file of tokens again if it has changed, and says what came of it.
    #[must_use]
    pub fn refresh(&self) -> Option<TokenReload> {
        self.tokens.as_ref().and_then(TokenFile::refresh)
    }
}
