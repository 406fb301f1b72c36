//! Access control: browser pages by their origin, clients by their token.
//!
//! There are two attackers. A web page can make a browser send requests to every address that the
//! browser reaches, such as a server on localhost; [`Access::check_origin`] refuses them. And any
//! client that reaches the port can try its luck; [`Access::authorize`] limits it to the rights of
//! its [token](Token).

mod digest;
mod origins;
mod tokens;
mod rules;

pub use origins::{AllowedOrigin, preflight_response};
pub use rules::{Access, Grant};
pub use tokens::{RequiredRight, Right, Rights, Token, TokenReload, new_token};
