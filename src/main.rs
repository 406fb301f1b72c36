//! The program: parse, bind, run, exit code.
//!
//! It is a table of contents: whatever can be wrong is found in the order in which it is written
//! here, before the line that promises a server is printed. All else is in the library, where tests
//! can bring listeners and a shutdown of their own.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use longpoll::access::{Access, new_token};
use longpoll::api::{self, LogHandle};
use longpoll::config::{self, Command, Config, LogLevel, TokenRequest};
use longpoll::metrics::Metrics;
use longpoll::server::{Server, listener};
use longpoll::shutdown::Shutdown;
#[cfg(feature = "systemd")]
use longpoll::systemd::ServiceManager;
use longpoll::{VERSION, logger};

fn main() -> ExitCode {
    #[cfg(feature = "client")]
    if let Some(code) = longpoll::client::command::run(std::env::args_os().skip(1)) {
        return code;
    }
    #[cfg(not(feature = "client"))]
    if std::env::args_os().nth(1).is_some_and(|word| word == "follow" || word == "publish") {
        return fail(&"this program was built without its clients (cargo feature client)", 2);
    }
    match config::parse(std::env::args_os().skip(1), |name| std::env::var_os(name)) {
        Ok(Command::Help) => print(&config::help()),
        Ok(Command::Version) => print(&format!("longpoll {VERSION}\n")),
        Ok(Command::Token(asked)) => match token(&asked) {
            Ok(code) => code,
            Err(error) => fail(&error, 2),
        },
        Ok(Command::Inspect(directory)) => {
            match api::inspect(&directory, &mut std::io::stdout().lock()) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(1),
                Err(error) => fail(&format!("{}: {error}", directory.display()), 1),
            }
        }
        Ok(Command::Repair(directory, asked)) => match api::repair(&directory, asked) {
            Ok(said) => print(&said),
            Err(error) => fail(&error, 1),
        },
        Ok(Command::Serve(config)) => match serve(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&error, 2),
    }
}

fn print(text: &str) -> ExitCode {
    // A reader that closed its end, such as head, has seen what it wanted.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// The line goes where a file can be made of it, the secret where a person sees it.
fn token(asked: &TokenRequest) -> std::io::Result<ExitCode> {
    let (secret, line) = new_token(asked)?;
    writeln!(std::io::stdout(), "{line}")?;
    writeln!(
        std::io::stderr(),
        "the secret of {}, which is shown this once: {secret}",
        asked.name
    )?;
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // If stderr is gone, the exit code still says it.
    let _ = std::io::stderr().write_all(logger::fatal_line(error).as_bytes());
    ExitCode::from(code)
}

fn serve(config: Config) -> std::io::Result<()> {
    let access = Access::open(&config)?;
    let listeners = listener::open(&config.listen)?;
    let shutdown = Shutdown::new()?;
    shutdown.on_signals().map_err(|e| no_thread(&e))?;
    let metrics = Arc::new(Metrics::default());
    let (logger, logger_thread) =
        logger::start(config.log, Arc::clone(&metrics)).map_err(|e| no_thread(&e))?;
    #[cfg(feature = "systemd")]
    let manager = ServiceManager::from_env(|name| std::env::var_os(name), logger.clone())?;
    let names: Vec<_> = listeners.iter().map(ToString::to_string).collect();
    let hints = config.log >= LogLevel::Info && !logger.is_journal();
    let tokens = access.token_status();
    let open_to_all = tokens.is_none();
    let exposed = listeners.iter().find(|l| open_to_all && l.is_beyond_loopback());
    let warning = exposed.map(|listener| {
        format!("whoever reaches {listener} may read, publish and delete; see --tokens")
    });
    #[cfg(feature = "systemd")]
    if !config.listen.is_empty() && listeners.iter().any(listener::Listener::is_passed) {
        logger.warning("--listen is not used: systemd has passed the sockets");
    }
    let log = LogHandle::open(&config, &metrics, &logger)?;
    let server = Server::open(config, listeners, access, log, &metrics, logger.clone(), &shutdown)
        .map_err(|e| no_thread(&e))?;
    if let Some(warning) = warning {
        logger.warning(warning);
    }
    if let Some((known, _)) = tokens {
        logger.info(format_args!("tokens: {known} are known"));
    }
    // After what was said of the start: whoever waits for these lines may ask at once.
    for name in &names {
        let _ = print(&format!("listening on {name}\n"));
    }
    if let Some(url) = names.iter().find(|name| hints && name.starts_with("http:")) {
        let token = if open_to_all { "" } else { "-H \"Authorization: Bearer $TOKEN\" " };
        let hint = format!(
            "To hold a request, and to answer it from another terminal:\n\
             curl {token}'{url}/topics/news?since=now'\n\
             curl {token}-d hello {url}/topics/news\n"
        );
        // Whoever has no stderr needs no hint.
        let _ = std::io::stderr().write_all(hint.as_bytes());
    }
    #[cfg(feature = "systemd")]
    {
        manager.notify(&format!("READY=1\nSTATUS=listening on {}", names.join(", ")));
        manager.feed_watchdog(&shutdown, || server.lives());
        manager.notify("STOPPING=1");
    }
    #[cfg(not(feature = "systemd"))]
    shutdown.wait();
    logger.info("draining");
    server.drain();
    logger.info("stopped");
    logger_thread.finish();
    Ok(())
}

fn no_thread(error: &std::io::Error) -> std::io::Error {
    std::io::Error::other(format!("the system allows too few threads: {error}"))
}
