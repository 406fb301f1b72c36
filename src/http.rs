//! HTTP messages, for the server, the api and the client: a request's head, a response and its
//! bytes, and the framing of bodies.
//!
//! Methods and reason phrases are those of `tiny_http`.

mod header_name;
mod framing;
pub mod chunked;
mod uri;
mod request_head;
mod response;

pub use framing::{BodyFraming, FramingHeaders};
pub use header_name::{HeaderName, is_token};
pub use request_head::{HttpVersion, RequestHead};
pub use response::{EncodeOptions, LAST_CHUNK, Response, encode_chunk, with_connection_close};
pub use tiny_http::Method;
pub use uri::{percent_decode, split_port};
