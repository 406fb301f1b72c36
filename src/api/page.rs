//! A page: the response of a poll or a part of a stream, and the key of all requests that get the
//! same one.

use std::sync::Arc;
use std::time::Instant;

use super::framing::StreamFraming;
use crate::access::{AllowedOrigin, RequiredRight, Right};
use crate::cursor::{Cursor, Since};
use crate::log::{GapPolicy, GapReason, LogSlice};
use crate::names::{TopicSet, TypeFilter};
use crate::semaphore::Permit;

/// The body of a poll's response.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BodyFormat {
    Json,
    Ndjson,
    Raw,
}

/// What a page is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PageShape {
    /// A whole response.
    Response(BodyFormat),
    /// A part of a stream.
    Part(StreamFraming),
}

/// All that determines a page's bytes, at one version of the log.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PageKey {
    pub topics: TopicSet,
    pub since: Since,
    pub types: TypeFilter,
    /// Events at most.
    pub limit: usize,
    pub shape: PageShape,
    pub on_gap: GapPolicy,
    /// The seconds of `Prefer: wait`, when they are applied.
    pub applied_wait: Option<u64>,
    /// The origin whose page may read the response.
    pub cors: Option<AllowedOrigin>,
}

impl PageKey {
    /// Whether the two keys differ at most in `since` and `topics`.
    pub fn same_but_since_and_topics(&self, other: &PageKey) -> bool {
        let PageKey { topics: _, since: _, types, limit, shape, on_gap, applied_wait, cors } =
            other;
        self.types == *types
            && self.limit == *limit
            && self.shape == *shape
            && self.on_gap == *on_gap
            && self.applied_wait == *applied_wait
            && self.cors == *cors
    }

    /// The right that reading this page needs.
    pub fn required_right(&self) -> RequiredRight {
        (Right::Read, self.topics.patterns().to_vec())
    }
}

/// A rendered response, or a rendered part of a stream.
pub struct RenderedPage {
    pub(super) bytes: Vec<u8>,
    /// The cursor after the page's last event.
    pub(super) next: Cursor,
    /// When the page's first event was appended.
    pub(super) first_at: Option<Instant>,
    /// The gap that the page reports, and how many events were lost to it.
    pub(super) gap: Option<(GapReason, u64)>,
    /// Whether the page has fewer events than it could, because the memory for responses was used
    /// up. Later requests may get more.
    pub(super) is_cut: bool,
    /// Counts the page among the responses in memory; held only to be dropped with the page.
    pub(super) _memory: Permit,
}

impl RenderedPage {
    /// The whole message, head included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The cursor to read on from.
    #[must_use]
    pub fn next(&self) -> Cursor {
        self.next
    }

    /// The length of the message's head.
    #[must_use]
    pub fn head_length(&self) -> usize {
        let end = self.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        end.map_or(self.bytes.len(), |at| at + 4)
    }
}

/// The result of reading a page's events, at some version of the log.
#[derive(Clone)]
pub enum Lookup {
    /// Events, or a gap.
    Data(Arc<RenderedPage>),
    /// No event matches; the slice has the cursor to go on from.
    Empty(Arc<LogSlice>),
}
