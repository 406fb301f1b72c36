//! The receipt of a publish: what its response says, kept in the log for repeats of its idempotency
//! key.

use std::time::SystemTime;

use crate::cursor::Cursor;
use crate::http::Response;
use crate::json::JsonObject;
use crate::names::Name;

#[derive(Clone)]
pub struct PublishReceipt {
    /// The cursor of the last published event.
    pub(super) cursor: Cursor,
    pub(super) time: SystemTime,
    /// How many held polls the publish released.
    pub(super) released: u32,
    /// Events in the batch; none if the publish was not a batch.
    pub(super) count: Option<u32>,
}

impl PublishReceipt {
    /// The receipt of a publish that an earlier run of the server accepted, as far as the store
    /// knows it. Polls that the publish released are not stored.
    #[must_use]
    pub fn restored(cursor: Cursor, time: SystemTime, count: Option<u32>) -> PublishReceipt {
        PublishReceipt { cursor, time, released: 0, count }
    }

    /// The response, with the status `201`, or `200` for a repeat.
    pub(super) fn response(&self, topic: &Name, status: u16, is_durable: bool) -> Response {
        let mut body = Vec::with_capacity(256);
        let mut object = JsonObject::begin(&mut body);
        let cursor = self.cursor.text();
        object
            .unescaped("topic", topic)
            .number("seq", self.cursor.seq.get())
            .unescaped("cursor", &cursor)
            .time("time", self.time)
            .number("released", self.released.into())
            .boolean("durable", is_durable);
        if let Some(count) = self.count {
            object.number("count", count.into());
        }
        if status == 200 {
            object.boolean("duplicate", true);
        }
        object.end();
        body.push(b'\n');
        Response::json(status, body).with_header("Next-Cursor", &cursor)
    }
}
