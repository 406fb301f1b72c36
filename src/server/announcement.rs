//! The lines that a started server prints and logs: where it listens, a warning if it is open to
//! everyone, and for a person at a terminal, how to try it.

use std::io::Write as _;

use super::listener::Listener;
use crate::access::Access;
use crate::config::{Config, LogLevel};
use crate::logger::Logger;

/// What is announced once the server accepts connections.
pub struct Announcement {
    /// The listeners' names.
    pub names: Vec<String>,
    warning: Option<String>,
    /// The number of tokens, if requests need one.
    tokens: Option<usize>,
    shows_hint: bool,
}

impl Announcement {
    pub fn new(
        listeners: &[Listener],
        config: &Config,
        access: &Access,
        logger: &Logger,
    ) -> Announcement {
        let tokens = access.token_status().map(|(known, _)| known);
        let is_exposed = |listener: &&Listener| tokens.is_none() && listener.is_beyond_loopback();
        let warning = listeners.iter().find(is_exposed).map(|listener| {
            format!("any client that reaches {listener} may read, publish and delete; see --tokens")
        });
        let names = listeners.iter().map(ToString::to_string).collect();
        let shows_hint = config.log >= LogLevel::Info && !logger.is_journal();
        Announcement { names, warning, tokens, shows_hint }
    }

    /// Prints and logs it. A process that waits for the lines on stdout may connect at once, so
    /// they come after all that is logged about the start.
    pub fn publish(&self, logger: &Logger) {
        if let Some(warning) = &self.warning {
            logger.warning(warning);
        }
        if let Some(known) = self.tokens {
            logger.info(format_args!("tokens: {known} are known"));
        }
        for name in &self.names {
            // A reader that has closed its end does not need the line.
            let _ = std::io::stdout().write_all(format!("listening on {name}\n").as_bytes());
        }
        if self.shows_hint {
            self.print_hint();
        }
    }

    fn print_hint(&self) {
        let Some(url) = self.names.iter().find(|name| name.starts_with("http:")) else { return };
        let token = if self.tokens.is_none() { "" } else { "-H \"Authorization: Bearer $TOKEN\" " };
        let hint = format!(
            "To hold a request, and to answer it from another terminal:\n\
             curl {token}'{url}/topics/news?since=now'\n\
             curl {token}-d hello {url}/topics/news\n"
        );
        // Without a stderr nobody needs the hint.
        let _ = std::io::stderr().write_all(hint.as_bytes());
    }
}
