//! The store: a log on disk, which `--data DIR` turns on.
//!
//! # Guarantees
//!
//! - With `--sync always` an event is acknowledged, and visible to polls, only after the disk has
//!   confirmed the sync. Every event that any client has seen survives a power cut, with the same
//!   seq and epoch. So do idempotency keys, trims, and what each topic remembers of its trims.
//! - With any other `--sync` the same holds after a clean shutdown. After any other end the log
//!   begins a new epoch, since seqs could otherwise repeat.
//! - A torn tail, which an interrupted write leaves, is truncated and logged. A server refuses to
//!   start if data that was synced is damaged or missing.
//!
//! # Threads
//!
//! ```text
//!   publisher ──► queue ──► flusher: take changes ──► write ─► sync ─► change the log ─► reply
//!   publisher ◄────────────────────────────────────────────────────────────────────────────┘
//!   └─► notifies the wait queues and delivers, as without a store
//! ```
//!
//! One thread, the [flusher], owns the files and is the only one that changes the log. It takes all
//! queued changes, assigns seqs, and writes them as one [commit]: one sync for all (group commit).
//! Only then does it append the events to the log, so that no poll sees an event that a crash could
//! undo. If the disk fails, no poll sees the commit: its publishers get `507`, the [journal] truncates
//! its file to the last acknowledged commit, and a second later it tries the disk again. A publish is
//! also refused if it would leave too little [space] for the store to shrink.
//! Without a store, publishers append to the log themselves and pay for none of this.
//!
//! # Files
//!
//! The directory contains segments, `NNNN….log`, named for the first seq in each, and a [lock]
//! file. A segment is text: a [header], then [lines] of checksum, commit mark and JSON
//! [record](mod@record). The newest segment begins with a snapshot of everything that the log knows
//! except its events, and continues with the commits since. The older segments are needed only for
//! the events that were retained at that moment. At each [rotation] the oldest segments without
//! live records are dropped, and other runs of segments are [compacted](compact), by a thread of its
//! own, or by the flusher if the disk is nearly full.
//!
//! Trims by `--retain-events` and `--retain-bytes` are not written: they follow from the appends,
//! and [replay] repeats them in the same order. Deletes, and trims by age, are written.
//!
//! # Copies
//!
//! A copy of a directory in use is a valid store if its files are copied in the order of their
//! names (`cp DIR/*.log COPY/`): each older segment then has at least the events that the newest
//! one expects. The copy has no lock file, and so begins a new epoch.
//!
//! # Modules
//!
//! In reading order; a module uses only those before it.

pub mod error;
pub mod storage;
pub mod lines;
pub mod record;
pub mod header;
pub mod scan;
pub mod lenient;
pub mod lock;
pub mod segments;
pub mod compact;
pub mod active_segment;
pub mod journal;
pub mod rotation;
pub mod space;
pub mod commit;
pub mod ages;
pub mod replay;
pub mod recovery;
pub mod startup;
pub mod flusher;
pub mod directory_view;
pub mod inspect;
pub mod set_aside;
pub mod repair;

pub use flusher::StoreWriter;
pub use startup::{OpenedStore, open};
