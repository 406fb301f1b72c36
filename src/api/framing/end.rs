//! Why a stream ends in order; each transport tells its client in its own way.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamEnd {
    /// The server shuts down.
    Drained,
    /// The client's token was revoked.
    Revoked,
    /// The client has disconnected.
    HungUp,
}
