//! The client of a request, as far as an operation has to know it.

use std::sync::Arc;

use crate::access::Grant;
use crate::conn::Conn;

/// The client of one request.
pub struct Caller<'a> {
    pub conn: &'a Arc<Conn>,
    /// Whether a shared page can be sent as it is. It cannot when the response has to say that the
    /// connection closes, or goes out without its body.
    pub takes_shared_page: bool,
    pub grant: &'a Grant,
}
