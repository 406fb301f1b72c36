//! Every cap that a client can meet and that is not a flag: its value, its unit, why it is that
//! and what happens at it.
//!
//! The caps that people set are in [`crate::config`]; both together are all there is. Nothing in
//! this server grows without one of them. Those of our own clients follow at the end.

use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Characters in a topic name, an event type or a prefix. Longer: `400`.
pub const NAME_CHARS: usize = 128;
/// Topics or prefixes that one poll may name, and event types that one filter may name. More: `400`.
pub const NAMES_PER_POLL: usize = 64;
/// Characters in an `Idempotency-Key`. Longer: `400`.
pub const IDEMPOTENCY_KEY_CHARS: usize = 128;
/// Characters in a publish's `Content-Type`: it is kept with the event. Longer: `400`.
pub const CONTENT_TYPE_CHARS: usize = 256;

/// Events in one page, and the largest `limit`. A larger `limit`: `400`.
pub const MAX_PAGE_EVENTS: usize = 1_000;
/// Events in a page when the poll does not say.
pub const DEFAULT_PAGE_EVENTS: usize = 100;
/// Bytes in one page's body. The page is cut before the event that would exceed it, never before
/// its first.
pub const PAGE_BYTES: usize = MIB;
/// Bytes of rendered answers that exist at once. Beyond it pages are cut to what is left, down to
/// one event each (as JSON up to six times its size): many readers far behind get smaller pages,
/// not refusals.
pub const RESPONSE_MEMORY_BYTES: usize = 16 * MIB;
/// An answer up to this size is part of its connection's own overhead and is not counted above.
pub const SMALL_RESPONSE_BYTES: usize = 4 * KIB;
/// Rendered pages kept for the next equal request: together at most 1 MiB. Equal requests arrive
/// within moments of each other, so a few are enough.
pub const CACHED_PAGES: usize = 32;
/// Bytes of the largest page that is kept for sharing; a larger one is rendered for each reader.
pub const CACHED_PAGE_BYTES: usize = 32 * KIB;

/// A stream says its cursor when it has said nothing for so long, or for `--max-wait` if that is
/// less: proxies cut what is silent, and a cursor that stays behind goes stale.
pub const STREAM_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// It says nothing more often than this, however short `--max-wait` is.
pub const MIN_STREAM_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// `WebSocket`s at once: each has a second thread, which the connection cap does not know. More:
/// `503`.
pub const MAX_WEBSOCKETS: usize = 128;
/// First size of a WebSocket's input buffer; it grows up to `--max-event`.
pub const WEBSOCKET_BUFFER_BYTES: usize = 2 * KIB;

/// Events in one NDJSON batch. More: `413`.
pub const BATCH_EVENTS: usize = 1_000;
/// Bytes in one NDJSON batch. More: `413`.
pub const BATCH_BYTES: usize = MIB;
/// Bytes of request bodies being received at once. Beyond it one that has been arriving for at least
/// [`IDLE_EVICTION_AGE`] gives way to a new one, which waits for that as a new connection does; else `503`
/// with `Retry-After`.
pub const BODY_MEMORY_BYTES: usize = 32 * MIB;
/// A body up to this size is part of its connection's own overhead and is not counted above.
pub const SMALL_BODY_BYTES: usize = 4 * KIB;
/// Nesting of a published JSON value. Deeper: `400`. Common parsers stop at 128 (`serde_json`'s
/// does), and a page puts three levels around it: no event may make a page unreadable.
pub const MAX_JSON_DEPTH: usize = 120;

/// How long an `Idempotency-Key` is remembered.
pub const IDEMPOTENCY_KEY_TTL: Duration = Duration::from_secs(600);
/// How many are remembered; the oldest go first and are counted in `/metrics`. Measured: 14.8 MB.
pub const MAX_IDEMPOTENCY_KEYS: usize = 65_536;
/// `TrimHistory` remembered one by one, so that a gap can say how many events were lost. About 160 kB.
pub const TRIM_HISTORY_EVENTS: usize = 10_000;
/// What an event costs beside its body, type and content type: its own fields and its places in
/// the log. Counted against `--retain-bytes`.
pub const EVENT_OVERHEAD_BYTES: usize = 128;
/// Topics for which one gap counts what was lost: as many as a poll may name one by one. Beyond
/// it, which takes a prefix, `lost` is `null` as a whole.
pub const GAP_COUNTED_TOPICS: usize = NAMES_PER_POLL;
/// Bytes of a gap told in a header (`raw` and `ndjson`); a larger `lost` is told as `null` there.
pub const GAP_HEADER_BYTES: usize = 4 * KIB;

/// Header fields in one request. More: `431`.
pub const MAX_HEADER_FIELDS: usize = 64;
/// First size of a connection's input buffer; it grows up to `--max-head`. It is given back while
/// a poll is held.
pub const INPUT_BUFFER_BYTES: usize = 2 * KIB;
/// Bytes of one line of a chunked body: a chunk's size with its extensions, or a trailer. Longer:
/// `400`.
pub const CHUNK_LINE_BYTES: usize = 256;
/// Bytes of chunk extensions and trailers in one body: they are of no use here, and without a cap
/// each byte of a body could bring a line of them. More: `431`.
pub const CHUNK_EXTRA_BYTES: usize = 4 * KIB;

/// A connection may be closed in favour of a new one when it has waited this long for its next
/// complete request; a new one queues so long for that, and [`EVICTION_GRACE`] more. Then: `503`.
pub const IDLE_EVICTION_AGE: Duration = Duration::from_millis(250);
/// Connections that queue so at each listener. In a full queue, those that have sent nothing or
/// only a part of their request are refused for newer ones, first those that came first; while all
/// have sent their whole request, the next ones wait in the kernel.
pub const QUEUED_CONNECTIONS: usize = 128;
/// What a connection that gives way needs at most to be closed; in fact microseconds.
pub const EVICTION_GRACE: Duration = Duration::from_millis(100);
/// Connections waiting in the kernel to be accepted. Beyond it the kernel lets them retry.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// Stack of a thread: address space, of which a parked worker touches about two pages.
/// JSON nested [`MAX_JSON_DEPTH`] deep is what needs the most: without optimisation 128 KiB did not
/// do for 100 levels.
pub const THREAD_STACK_BYTES: usize = 256 * KIB;
/// Descriptors kept back for listeners, standard streams and refusals when the connection cap is
/// fitted to the descriptor limit.
/// The queues of two listeners are among them.
pub const RESERVED_DESCRIPTORS: u64 =
    32 + 2 * LINGERING_CLOSE_CONNECTIONS as u64 + 2 * QUEUED_CONNECTIONS as u64;
/// Threads kept back for all but workers when the connection cap is fitted to a limit of threads:
/// one for each listener, and about half a dozen more.
pub const RESERVED_THREADS: u64 = 16;
/// Connections that were answered before their request was read whole, being discarded; as many
/// more may queue for that. Beyond it the oldest, or the newcomer, is closed at once.
pub const LINGERING_CLOSE_CONNECTIONS: usize = 64;
/// How long such a connection's input is discarded; then it is closed.
pub const LINGERING_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes discarded from such a connection; then it is closed.
pub const LINGERING_CLOSE_BYTES: usize = MIB;
/// How often held polls are looked over for clients that hung up. A place is free again within
/// twice this.
pub const HANGUP_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// `--write-timeout` grows by a second for each so many bytes of an answer.
pub const WRITE_BYTES_PER_SECOND: usize = 16 * KIB;
/// How long a drain waits for requests that are part-way in, and for those that may be on their way,
/// before it closes their connections. One that has been silent for so long is closed at once.
pub const DRAIN_READ_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a drain waits for answers that are being written.
pub const DRAIN_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// `Retry-After` is a random whole number of seconds in this range, so that refused clients do
/// not return together.
pub const RETRY_AFTER_SECONDS: std::ops::RangeInclusive<u64> = 1..=5;

/// How often an acceptor that nobody comes to turns over, which shows that it lives.
pub const ACCEPT_WAKE_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest `WatchdogSec`: half of it has to leave room for a turn that comes late. Less: the
/// server does not start.
pub const MIN_WATCHDOG_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a word to systemd may take. Then the server goes on without it having been said.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

/// Tokens in a file. More: the file is refused. Each request that needs one is compared with all.
pub const MAX_TOKENS: usize = 1_000;
/// Bytes of a file of tokens; larger ones are refused. It is read whole, four times a second.
pub const TOKENS_FILE_BYTES: u64 = 512 << 10;
/// How often the file of tokens is looked at. A change is followed at the second look that sees it:
/// within a second, and not half written.
pub const TOKEN_FILE_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Seconds for which a browser may keep the answer to a preflight: Chromium keeps none longer.
pub const PREFLIGHT_MAX_AGE_SECONDS: u64 = 7_200;

/// Lines waiting for a slow stderr. Beyond it they are dropped and counted.
pub const LOG_QUEUE_LINES: usize = 1_024;
/// Characters of one such line; the rest is cut off.
pub const LOG_LINE_CHARS: usize = 1_024;
/// Refusals, and failures to accept, are told at once, and then so often for each cause, with how
/// many there were: two lines in 10 s for each of two dozen causes is what an attack can write.
pub const LOG_REPEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Topics in one answer of `GET /topics`, and its default.
pub const MAX_LISTED_TOPICS: usize = 1_000;

/// A store begins a new segment when the last one has this share of `--retain-bytes`, within
/// [`SEGMENT_BYTES`]: what is dead leaves the disk a segment at a time, so smaller ones waste less.
pub const SEGMENT_SHARE: u64 = 8;
/// Bytes of a segment: at least so many that a disk is not asked to sync directories all the time,
/// at most so many that rewriting one is done in a moment.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 256 * KIB as u64..=64 * MIB as u64;
/// Bytes of one line in a store: a body of the largest `--max-event` with everything beside it.
/// Longer: damage.
pub const STORE_LINE_BYTES: usize = 2 * MIB;
/// Bytes that one commit takes in before it is written; the publishes beyond it are in the next.
pub const COMMIT_BYTES: usize = 4 * MIB;
/// Publishes in one commit; few enough that they are looked through one by one. The rest as above.
pub const COMMIT_PUBLISHES: usize = 1_024;
/// What may queue for the flusher: each connection has at most one publish there, and there can
/// be no more connections than this, so it is never full.
pub const COMMIT_QUEUE: usize = 1_000_100;
/// How often a store that failed is looked over again. In between, publishes get `507` at once.
pub const STORE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

// From here on: what bounds `longpoll follow` and `longpoll publish`, the clients.

/// How long a client takes to connect, all addresses of a name together. Then it tries again.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client takes to send a request. Then it tries again.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an answer may keep a client waiting beyond the wait that it asked for; a pause in the
/// middle may be as long. Then the network is taken for dead, and the client tries again.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a publish may take to be answered: it may have to wait for a disk. Then it is repeated.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection is kept for the next request; a later one makes its own, because what
/// stands between may have forgotten it without a word.
pub const CONNECTION_REUSE_MAX: Duration = Duration::from_secs(15);
/// Bytes of an answer's head that a client takes: proxies add to it, and cookies. Larger: it is not
/// this server's, and the client tries again. As much room there is for what has arrived of an
/// answer and was not taken yet.
pub const RESPONSE_HEAD_BYTES: usize = 64 * KIB;
/// Header fields in an answer. More: as above.
pub const MAX_RESPONSE_FIELDS: usize = 128;
/// Interim answers (`100` to `199`) before the last one. More: as above. Of chunks in an answer,
/// [`CHUNK_LINE_BYTES`] and [`CHUNK_EXTRA_BYTES`] hold as well.
pub const MAX_INTERIM_RESPONSES: usize = 16;
/// Bytes of an answer's body that a client takes: one event of 1 MiB can become 6 MiB of JSON.
/// Larger: it is not this server's, and the client tries again.
pub const RESPONSE_BODY_BYTES: usize = 8 * MIB;
/// The longest `--wait`: servers clamp it anyway, to 55 s unless told otherwise.
pub const MAX_WAIT: Duration = Duration::from_secs(3_600);
/// Back-off with full jitter: the n-th pause is a random part of this, doubled n times, ...
pub const BACKOFF_BASE: Duration = Duration::from_millis(250);
/// ... but at most of this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A longer `Retry-After` is taken for this long.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// Polls that are answered with nothing follow each other no faster, whatever a server or a proxy
/// makes of the wait.
pub const MIN_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The longest `--retry-for`. With [`CONNECT_TIMEOUT`] and [`SEND_TIMEOUT`] it has to end before [`IDEMPOTENCY_KEY_TTL`]: a
/// publish that is repeated later could happen twice.
pub const RETRY_FOR_MAX: Duration = Duration::from_secs(480);
/// Bytes of one event that `publish --stdin whole` takes; what `--max-event` may be at most.
pub const STDIN_EVENT_BYTES: usize = MIB;
/// Bytes of a token file. Larger: it is refused.
pub const TOKEN_FILE_BYTES: usize = 4 * KIB;
/// Bytes of a state file: 64 topics and 64 types with the longest names, and a cursor. Larger: it
/// is refused.
pub const STATE_FILE_BYTES: usize = 32 * KIB;
/// Characters of a text from the server that an error message shows.
pub const SERVER_TEXT_CHARS: usize = 500;
