//! A poll that is held, as its own thread, publishers and housekeeping see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::page::{PageKey, RenderedPage};
use crate::access::Grant;
use crate::conn::Conn;
use crate::semaphore::PermitReleaser;
use crate::waiters::Waiters;

/// All held polls and streams, by the topics that they wait for.
pub type HeldPolls = Waiters<HeldPoll, Delivery>;

/// What a held poll or a stream registers for those who answer or cancel it.
pub struct HeldPoll {
    /// The connection to write the response to.
    pub conn: Arc<Conn>,
    pub(super) key: PageKey,
    /// Whether a publisher may write a shared page to the connection.
    pub(super) takes_shared_page: bool,
    pub(super) grant: Grant,
    /// Releases the poll's permit among the held polls. A publisher does so before it writes the
    /// response, as the poll's own thread does, so that a client which has its response finds the
    /// place free. None for a stream, which keeps its permit to its end.
    pub(super) permit: Option<PermitReleaser>,
}

/// A page that a publisher has written to a held connection, or begun to write.
pub struct Delivery {
    pub page: Arc<RenderedPage>,
    /// Bytes of the page that the socket has taken.
    pub sent: usize,
}

/// A poll for which there is no event yet, before it is held.
pub struct PendingPoll {
    pub(super) key: PageKey,
    pub(super) granted_wait: Duration,
    pub(super) deadline: Instant,
}
