//! The program: parses the command line, runs the command, and exits with its code.
//!
//! A table of contents: each command is a function of the library. What can be wrong at the start
//! of a server is found in the order in which it is written here and in `longpoll::serve`.

use std::io::Write as _;
use std::process::ExitCode;

use longpoll::access::{Access, new_token};
use longpoll::config::{self, Command, Config, TokenRequest};
use longpoll::shutdown::Shutdown;
use longpoll::{VERSION, api, logger, server, threads};

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
        Ok(Command::Token(request)) => match create_token(&request) {
            Ok(code) => code,
            Err(error) => fail(&error, 2),
        },
        Ok(Command::Inspect(directory)) => {
            match api::inspect(&directory, &mut std::io::stdout().lock()) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(1),
                Err(error) => fail(&error, 1),
            }
        }
        Ok(Command::Repair(directory, mode)) => match api::repair(&directory, mode) {
            Ok(report) => print(&report),
            Err(error) => fail(&error, 1),
        },
        Ok(Command::Serve(config)) => match serve(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&error, 2),
    }
}

fn serve(config: Config) -> std::io::Result<()> {
    // Only a check, which `longpoll::serve` repeats: a token file that cannot be used is reported
    // before any socket is bound.
    Access::open(&config)?;
    let listeners = server::listen(&config.listen)?;
    let shutdown = Shutdown::new()?;
    shutdown.on_signals().map_err(|e| threads::too_few(&e))?;
    longpoll::serve(listeners, config, &shutdown)
}

/// Prints the token's line on stdout, to be redirected to a file, and its secret on stderr, for the
/// person at the terminal.
fn create_token(request: &TokenRequest) -> std::io::Result<ExitCode> {
    let (secret, line) = new_token(request)?;
    writeln!(std::io::stdout(), "{line}")?;
    writeln!(
        std::io::stderr(),
        "the secret of {}, which is shown this once: {secret}",
        request.name
    )?;
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) -> ExitCode {
    // A reader that has closed its end, such as head, has read what it needs.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    // Without a stderr, the exit code still reports the failure.
    let _ = std::io::stderr().write_all(logger::fatal_line(error).as_bytes());
    ExitCode::from(code)
}
