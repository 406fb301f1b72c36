//! What the handling of requests, streams and `WebSocket`s share: the server's parts that every
//! connection needs, and the ways to write a response, to refuse and to log.

use std::sync::Arc;
use std::time::Instant;

use super::body::BodyBudget;
use super::lingering_close::LingeringClose;
use super::request::RequestEnd;
use crate::access::Grant;
use crate::api::Api;
use crate::client_limit::ClientLimiter;
use crate::config::Config;
use crate::conn::Conn;
use crate::http::{EncodeOptions, RequestHead, Response};
use crate::limits::BODY_MEMORY_BYTES;
use crate::logger::Logger;
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::shutdown::Shutdown;

/// Handles connections; shared by all workers.
pub struct Handler {
    pub api: Arc<Api>,
    pub config: Config,
    pub clients: ClientLimiter,
    pub metrics: Arc<Metrics>,
    pub logger: Logger,
    pub shutdown: Shutdown,
    pub lingering: LingeringClose,
    pub bodies: BodyBudget,
}

/// Whether the connection continues after a response.
#[derive(PartialEq, Eq, Clone, Copy)]
pub enum Persistence {
    KeepAlive,
    Close,
}

/// One request on a connection, as far as it is known.
pub struct Exchange<'a> {
    pub conn: &'a Arc<Conn>,
    /// `None` if the head could not be read.
    pub head: Option<&'a RequestHead>,
    /// Whether it is a HEAD request, known even of some heads that could not be read.
    pub is_head: bool,
    pub grant: Grant,
}

impl Exchange<'_> {
    pub fn encode_options(&self, persistence: Persistence) -> EncodeOptions<'_> {
        EncodeOptions {
            include_body: !self.is_head,
            close: persistence == Persistence::Close,
            allowed_origin: self.grant.allowed_origin.as_deref(),
        }
    }
}

impl Handler {
    pub fn new(
        api: Arc<Api>,
        config: Config,
        clients: ClientLimiter,
        logger: Logger,
        shutdown: Shutdown,
        lingering: LingeringClose,
    ) -> Handler {
        let metrics = Arc::clone(api.metrics());
        let bodies = BodyBudget::new(BODY_MEMORY_BYTES);
        Handler { api, config, clients, metrics, logger, shutdown, lingering, bodies }
    }

    /// Refuses a request that was not read completely, and closes the connection.
    pub fn refuse(&self, exchange: &Exchange<'_>, end: RequestEnd) -> Persistence {
        if let RequestEnd::With(problem) = end {
            let response = self.refusal(exchange, &problem);
            let status = response.status;
            let bytes = response.encode(exchange.encode_options(Persistence::Close));
            self.log_request(exchange, status, bytes.len(), None);
            if self.write(exchange.conn, &bytes).is_ok() {
                self.lingering.close(Arc::clone(exchange.conn));
            }
        }
        Persistence::Close
    }

    /// The response to a refused request, which is counted and logged.
    pub fn refusal(&self, exchange: &Exchange<'_>, problem: &Problem) -> Response {
        self.metrics.count_refusal(problem.cause());
        let conn = exchange.conn;
        let client =
            exchange.head.and_then(|head| self.clients.forwarded_client(conn.peer(), head));
        match client {
            Some(client) => self.logger.refusal(format_args!("{client} by {conn}"), problem),
            None => self.logger.refusal(conn, problem),
        }
        Response::from(problem)
    }

    pub fn write(&self, conn: &Conn, bytes: &[u8]) -> std::io::Result<()> {
        conn.send_within(bytes, self.config.write_timeout)
    }

    /// Logs a request, if requests are logged. `started` is when it was complete.
    pub fn log_request(
        &self,
        exchange: &Exchange<'_>,
        status: u16,
        bytes: usize,
        started: Option<Instant>,
    ) {
        if !self.logger.logs_requests() {
            return;
        }
        let conn = exchange.conn;
        let (method, path) = exchange
            .head
            .map_or((String::from("-"), "-"), |head| (head.method.to_string(), head.path()));
        let ms = started.map_or(0, |started| started.elapsed().as_millis() as u64);
        // Debug escapes a path that could forge a log line.
        self.logger.request(format_args!("{conn} {method} {path:?} {status} {bytes}B {ms}ms"));
    }
}
