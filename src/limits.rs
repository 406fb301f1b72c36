//! Every limit that is not a flag: its value and unit, the reason for it, and what happens when it
//! is reached.
//!
//! The limits that an operator sets are in [`crate::config`]. Everything that grows in this server
//! is bounded by one of the two. The limits of the `longpoll` clients follow at the end.

use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

// Names and keys.

/// Characters in a topic name, an event type or a topic prefix. A longer one is answered `400`.
pub const NAME_CHARS: usize = 128;
/// Topics and prefixes in one poll, and event types in one filter. More are answered `400`.
pub const NAMES_PER_POLL: usize = 64;
/// Characters in an `Idempotency-Key`. A longer one is answered `400`.
pub const IDEMPOTENCY_KEY_CHARS: usize = 128;
/// Characters in the `Content-Type` of a publish, which the log keeps with each event. A longer one
/// is answered `400`.
pub const CONTENT_TYPE_CHARS: usize = 256;

// Pages: the events in the answer to one poll.

/// Events in one page, and the largest `limit`. A larger `limit` is answered `400`.
pub const MAX_PAGE_EVENTS: usize = 1_000;
/// Events in one page when the poll has no `limit`.
pub const DEFAULT_PAGE_EVENTS: usize = 100;
/// Bytes in the body of one page. A page ends before the event that would exceed it, but always
/// holds at least one event.
pub const PAGE_BYTES: usize = MIB;
/// Bytes of all rendered responses in memory. Beyond it, pages shrink to what is left, down to one
/// event each (as JSON, up to six times its size): many readers that lag get smaller pages instead
/// of errors.
pub const RESPONSE_MEMORY_BYTES: usize = 16 * MIB;
/// Bytes up to which a response counts as overhead of its connection, and not against
/// [`RESPONSE_MEMORY_BYTES`].
pub const SMALL_RESPONSE_BYTES: usize = 4 * KIB;
/// Rendered pages kept for the next equal request, together at most 1 MiB. Equal requests arrive
/// within moments of each other, so a few pages are enough; a new page replaces an older one.
pub const CACHED_PAGES: usize = 32;
/// Bytes of the largest page that the cache keeps. A larger one is rendered for each reader.
pub const CACHED_PAGE_BYTES: usize = 32 * KIB;

// Streams.

/// A stream without events sends its cursor at this interval, or every `--max-wait` if that is
/// shorter: proxies close silent connections, and a cursor that is not updated goes stale.
pub const STREAM_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);
/// The shortest interval between two such cursors, however short `--max-wait` is.
pub const MIN_STREAM_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Open `WebSocket`s. Each may use a second thread, which `--max-connections` does not count. One
/// more is answered `503`.
pub const MAX_WEBSOCKETS: usize = 128;
/// Bytes of a WebSocket's input buffer. A message beside it takes up to `--max-event`.
pub const WEBSOCKET_BUFFER_BYTES: usize = 2 * KIB;

// Publishes.

/// Events in one NDJSON batch. More are answered `413`.
pub const BATCH_EVENTS: usize = 1_000;
/// Bytes in one NDJSON batch. More are answered `413`.
pub const BATCH_BYTES: usize = MIB;
/// Bytes of all request bodies that are being received. Beyond it, a body that has been arriving
/// for at least [`IDLE_EVICTION_AGE`] is evicted for a new one, which waits for that as long as a
/// new connection does; without such a body the new one is answered `503` with `Retry-After`.
pub const BODY_MEMORY_BYTES: usize = 32 * MIB;
/// Bytes up to which a request body counts as overhead of its connection, and not against
/// [`BODY_MEMORY_BYTES`].
pub const SMALL_BODY_BYTES: usize = 4 * KIB;
/// Levels of nesting in a published JSON value. Deeper is answered `400`. Common parsers stop at
/// 128 (`serde_json` does), and a page adds three levels: no event may make a page unreadable.
pub const MAX_JSON_DEPTH: usize = 120;

// The log.

/// How long an `Idempotency-Key` is remembered. A later repeat is a new publish.
pub const IDEMPOTENCY_KEY_TTL: Duration = Duration::from_secs(600);
/// A step of the wall clock between two records of a store, or between the last one and a start, up to
/// which it counts as time for the keys. A longer one is taken for a wrong clock, as of a host that
/// boots in 1970. A server that was down for longer remembers its keys for 10 more minutes.
pub const TRUSTED_KEY_STEP: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Idempotency keys in memory (measured: 14.8 MB). Beyond it, the oldest are forgotten and counted
/// in `/metrics`.
pub const MAX_IDEMPOTENCY_KEYS: usize = 65_536;
/// Trimmed events remembered one by one (about 160 kB), so that a gap can say how many events were
/// lost. A gap that reaches further back has `null` instead of a number.
pub const TRIM_HISTORY_EVENTS: usize = 10_000;
/// Bytes that an event costs beside its body, type and content type: its own fields and its entries
/// in the index. Counted against `--retain-bytes`.
pub const EVENT_OVERHEAD_BYTES: usize = 128;
/// Topics for which one gap counts the lost events: as many as a poll can name one by one. A poll
/// with a prefix can cover more; then `lost` is `null`.
pub const GAP_COUNTED_TOPICS: usize = NAMES_PER_POLL;
/// Bytes of the `Poll-Gap` header (`raw` and `ndjson`). A `lost` that would exceed it becomes
/// `null`.
pub const GAP_HEADER_BYTES: usize = 4 * KIB;
/// Topics in one answer of `GET /topics`, and the default of its `limit`. A larger `limit` is
/// answered `400`.
pub const MAX_LISTED_TOPICS: usize = 1_000;

// Requests.

/// Header fields in one request. More are answered `431`.
pub const MAX_HEADER_FIELDS: usize = 64;
/// Initial bytes of a connection's input buffer, which grows up to `--max-head`. The buffer is
/// released while a poll is held.
pub const INPUT_BUFFER_BYTES: usize = 2 * KIB;
/// Bytes in one line of a chunked body: a chunk's size with its extensions, or a trailer field. A
/// longer line is answered `400`.
pub const CHUNK_LINE_BYTES: usize = 256;
/// Bytes of chunk extensions and trailer fields in one body. They are discarded, and without a
/// limit each byte of a body could come with a line of them. More are answered `431`.
pub const CHUNK_EXTRA_BYTES: usize = 4 * KIB;

// Connections.

/// Age from which a connection that waits for its next complete request may be closed for a new
/// one. With all connections in use, a new one queues this long, plus [`EVICTION_GRACE`], for such
/// a place; then it is answered `503`.
pub const IDLE_EVICTION_AGE: Duration = Duration::from_millis(250);
/// Connections in that queue, for each listener. A full queue refuses connections that have sent
/// nothing, or only part of a request, the oldest first; if all have sent a whole request, new
/// connections wait in the kernel's backlog.
pub const QUEUED_CONNECTIONS: usize = 128;
/// Time allowed for closing an evicted connection; it takes microseconds. Then the new connection
/// is answered `503`.
pub const EVICTION_GRACE: Duration = Duration::from_millis(100);
/// Connections in the kernel's backlog of one listener. Beyond it, clients retry their `SYN`.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// Bytes of a thread's stack. This is address space: a parked worker touches about two pages of it.
/// JSON nested [`MAX_JSON_DEPTH`] levels deep needs the most: without optimisation, 128 KiB were
/// too few for 100 levels.
pub const THREAD_STACK_BYTES: usize = 256 * KIB;
/// File descriptors reserved for listeners, standard streams, lingering closes and the queues of
/// two listeners when `--max-connections` is lowered to the descriptor limit.
pub const RESERVED_DESCRIPTORS: u64 =
    32 + 2 * LINGERING_CLOSE_CONNECTIONS as u64 + 2 * QUEUED_CONNECTIONS as u64;
/// Threads reserved for everything but workers when `--max-connections` is lowered to a limit of
/// threads: one for each listener, and about half a dozen others.
pub const RESERVED_THREADS: u64 = 16;
/// Connections in a lingering close: answered before their request was read whole, their input
/// being discarded so that no reset destroys the answer. As many again may queue; beyond that, the
/// oldest or the new one is closed at once.
pub const LINGERING_CLOSE_CONNECTIONS: usize = 64;
/// How long a lingering close discards input. Then the connection is closed.
pub const LINGERING_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that a lingering close discards. Then the connection is closed.
pub const LINGERING_CLOSE_BYTES: usize = MIB;
/// How often held polls are checked for clients that hung up. Their slots are free again within
/// twice this time.
pub const HANGUP_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// `--write-timeout` grows by one second for every this many bytes of a response.
pub const WRITE_BYTES_PER_SECOND: usize = 16 * KIB;
/// How long a drain waits for a request that is partly read, or that may be on its way. Then the
/// connection is closed. A connection that has been silent for this long is closed at once.
pub const DRAIN_READ_TIMEOUT: Duration = Duration::from_millis(500);
/// How long a drain waits for responses that are being written. Then the server stops anyway.
pub const DRAIN_WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Seconds in `Retry-After`: a random number from this range, so that clients refused together do
/// not return together.
pub const RETRY_AFTER_SECONDS: std::ops::RangeInclusive<u64> = 1..=5;

// The service manager.

/// How often an acceptor without connections wakes up, which shows the watchdog that it is alive.
pub const ACCEPT_WAKE_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest `WatchdogSec`: half of it has to leave time for an acceptor that wakes late. With a
/// shorter one the server does not start.
pub const MIN_WATCHDOG_TIMEOUT: Duration = Duration::from_secs(4);
/// How long sending a message to systemd may take. Then the server continues without it.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(1);

// Tokens and origins.

/// Tokens in the file of `--tokens`, which is refused with more. Each request that needs a token is
/// compared with all of them.
pub const MAX_TOKENS: usize = 1_000;
/// Bytes of the file of `--tokens`, which is refused when larger. It is read whole, four times a
/// second.
pub const TOKENS_FILE_BYTES: u64 = 512 << 10;
/// How often the file of `--tokens` is read. A change takes effect at the second read that sees it:
/// within a second, and never half written.
pub const TOKEN_FILE_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Seconds for which a browser may cache a preflight response. Chromium caches none longer.
pub const PREFLIGHT_MAX_AGE_SECONDS: u64 = 7_200;

// The program's own log.

/// Lines that wait for a slow stderr. Beyond it, lines are dropped and counted in `/metrics`.
pub const LOG_QUEUE_LINES: usize = 1_024;
/// Characters in one log line. The rest is cut off.
pub const LOG_LINE_CHARS: usize = 1_024;
/// The first refusal or failed accept of a cause is logged at once, further ones at this interval
/// with their number. An attacker can write two lines in 10 s for each of two dozen causes.
pub const LOG_REPEAT_INTERVAL: Duration = Duration::from_secs(10);

// The store.

/// A segment is full at this fraction (one eighth) of `--retain-bytes`, within [`SEGMENT_BYTES`].
/// Disk space is reclaimed a segment at a time, so smaller segments waste less.
pub const SEGMENT_SHARE: u64 = 8;
/// Bytes of a full segment: at least enough that directories are not synced all the time, at most
/// what can be rewritten in a moment.
pub const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = 256 * KIB as u64..=64 * MIB as u64;
/// Bytes of one line in a store: a body of the largest `--max-event` with everything beside it. A
/// longer line is damage.
pub const STORE_LINE_BYTES: usize = 2 * MIB;
/// Bytes that one commit collects before it is written. Further publishes go into the next commit.
pub const COMMIT_BYTES: usize = 4 * MIB;
/// Publishes in one commit, few enough for a linear search. Further ones go into the next commit.
pub const COMMIT_PUBLISHES: usize = 1_024;
/// Commands in the flusher's queue: as many as one commit takes. Publishers beyond it wait to
/// enqueue, as they wait for their commit anyway. Its slots are allocated at the start: 200 kB.
pub const COMMIT_QUEUE: usize = COMMIT_PUBLISHES;
/// Bytes of the disk that a store leaves free beyond its next snapshot and its largest compacted
/// segment: the blocks of two files, the file system's own entries, and small commits that only
/// trim. A publish that would use them is answered `507`.
pub const STORE_FREE_BYTES: u64 = 32 * KIB as u64;
/// How long a server that ends waits for its store. Then it ends without: the next start treats
/// that as a crash.
pub const STORE_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two tries to close a store on a failing disk, which together take at most
/// [`STORE_RETRY_INTERVAL`].
pub const STORE_CLOSE_PAUSE: Duration = Duration::from_millis(20);
/// How often a store that failed is tried again. In between, publishes are answered `507` at once.
pub const STORE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

// The clients `longpoll follow` and `longpoll publish`.

/// How long a client tries to connect: the resolution of the name and all its addresses together.
/// Then it retries.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Age of an answer from the resolver that came after its attempt to connect had failed. The next
/// attempt usually follows within [`BACKOFF_MAX`]; an older answer is discarded.
pub const LATE_ADDRESSES_MAX: Duration = Duration::from_secs(60);
/// How long a client takes to send a request. Then it retries.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a response may take beyond the wait of the poll; also the longest pause within a
/// response. Then the client takes the network for dead and retries.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client waits for the response to a publish, which may have to wait for a disk. Then
/// it retries with the same key.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle time up to which a client reuses its connection. After that it opens a new one, because a
/// middlebox may have forgotten the old one silently.
pub const CONNECTION_REUSE_MAX: Duration = Duration::from_secs(15);
/// Bytes in the head of a response, which proxies extend, also with cookies; and in the buffer for
/// what was received and not yet read. A larger head does not come from this server: the client
/// retries.
pub const RESPONSE_HEAD_BYTES: usize = 64 * KIB;
/// Header fields in a response. With more the client retries.
pub const MAX_RESPONSE_FIELDS: usize = 128;
/// Interim responses (`100` to `199`) before the final one. After more the client retries.
/// [`CHUNK_LINE_BYTES`] and [`CHUNK_EXTRA_BYTES`] apply to the chunks of a response as well.
pub const MAX_INTERIM_RESPONSES: usize = 16;
/// Bytes in the body of a response: one event of 1 MiB can become 6 MiB of JSON. A larger body does
/// not come from this server: the client retries.
pub const RESPONSE_BODY_BYTES: usize = 8 * MIB;
/// The longest `--wait`; a longer one is refused. Servers clamp it anyway, to 55 s by default.
pub const MAX_FOLLOW_WAIT: Duration = Duration::from_secs(3_600);
/// Back-off with full jitter: the n-th pause is a random part of this time, doubled n - 1 times, up to
/// [`BACKOFF_MAX`]. A `Retry-After` is added to it.
pub const BACKOFF_BASE: Duration = Duration::from_millis(250);
/// The longest pause of the back-off.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that a client obeys. A longer one counts as this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);
/// The shortest time between polls with empty answers, however a server or a proxy shortens the
/// wait.
pub const MIN_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time from the first attempt of a publish to the beginning of the last one, also in
/// `longpoll.js`; a longer `--retry-for` is refused. A request that reaches the server later than
/// [`IDEMPOTENCY_KEY_TTL`] could publish a second event. Sending takes up to [`SEND_TIMEOUT`], and
/// as much again is left for the way, for example through a proxy that reads the whole request
/// first.
pub const RETRY_FOR_MAX: Duration =
    IDEMPOTENCY_KEY_TTL.saturating_sub(SEND_TIMEOUT.saturating_mul(2));
/// Bytes of one event that `publish --stdin whole` reads: the largest possible `--max-event`. More
/// are refused.
pub const STDIN_EVENT_BYTES: usize = MIB;
/// Bytes of a client's token file. A larger one is refused.
pub const TOKEN_FILE_BYTES: usize = 4 * KIB;
/// Bytes of a state file: 64 topics and 64 types with the longest names, and a cursor. A larger one
/// is refused.
pub const STATE_FILE_BYTES: usize = 32 * KIB;
/// Characters of a server's text in an error message. The rest is cut off.
pub const SERVER_TEXT_CHARS: usize = 500;
