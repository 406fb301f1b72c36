//! The load generator behind scripts/bench.sh, compare.sh, siege.sh, size.sh and durable.sh: one
//! thread and non-blocking sockets (`siege` has a second thread for its probe), on loopback only.
//! Every load checks the content of every response, is bounded in count and time, and prints one
//! line of JSON.

mod args;
mod attack;
mod bytes;
mod compare;
mod conn;
mod epoll;
mod fanout;
mod floor;
mod held_polls;
mod probe;
mod processes;
mod report;
mod sequential;
mod siege;
mod stats;
mod target;
mod throughput;

use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use args::Args;
use target::Target;

pub type LoadResult<T> = Result<T, Box<dyn Error>>;

const USAGE: &str = "\
load COMMAND --server longpoll|nchan|floor --port PORT [--NAME VALUE]... [--tag NAME=VALUE]...

  fanout     --polls 1000 --repeats 20    one publish to many held polls, time to the last response
  memory     --polls 1000 --pid PID [--quiet S]  resident memory of a process and its children,
                                          idle and with held polls; CPU time and thread wake-ups
                                          during S quiet seconds
  publish    --connections 16 --seconds 2 [--topics N] [--retained N]
                                          [--prefix-polls N] [--other-polls N]
                                          publish throughput
  poll       --connections 16 --seconds 2 throughput of polls that return one event immediately
  roundtrip  --rounds 3000                one publisher and one poller, time from publish to
                                          response
  sequence   --kind publish|poll --count 1000  the same request on one connection
  start      --repeats 5 -- COMMAND...    time from spawning a command to its first 200; it has to
                                          listen on PORT
  pages      --events 10000 --repeats 5   reading a history in pages of 1,000 events
  floor      [--port PORT] [--lifetime S] runs the floor server and prints its address
  siege      --case silent|heads|bodies|readers|polls|greedy|NAME --pid PID [--seconds 30] [--attackers N]
             --max-connections 64 --max-polls 56 --write-timeout 2 [-- COMMAND...]
                                          an attack beside a probe; another NAME is the attack of
                                          COMMAND; prints a row of Markdown
  scenario   --method NAME --clients 10 --rate 50 --seconds 5 --pid PID
                                          [--seed N] [--round-trip-ms N]
                                          events at random times, and clients that receive them by
                                          one delivery method
  caps       --polls 500 --beyond 50 --pid PID  polls at the server's cap, more polls, a publish
  comparison --results FILE [--json FILE] [--svg FILE]
                                          tables, verdicts and a chart from scenarios and caps
  free-port                               prints an unused port
  report     --results FILE [--json FILE] [--foreign PERCENT] [--busy-limit PERCENT]
                                          Markdown tables from lines of figures

Every load needs a fresh server. Tags are copied into the line of figures. A wrong response ends the
run with status 1.";

fn run(command: &str, args: Args) -> LoadResult<ExitCode> {
    let mut args = args;
    match command {
        "floor" => return floor::serve(&mut args).map(|()| ExitCode::SUCCESS),
        "report" => return report::run(&mut args),
        "siege" => return siege::run(&mut args),
        "comparison" => return compare::report(&mut args).map(|()| ExitCode::SUCCESS),
        "free-port" => {
            args.finish()?;
            println!("{}", TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port());
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let server = args.required("server")?;
    let target = Target::parse(&server, args.number("port", 0)?)?;
    let figures = match command {
        "fanout" => fanout::fanout(target, &mut args)?,
        "memory" => fanout::memory(target, &mut args)?,
        "publish" => throughput::publish(target, &mut args)?,
        "poll" => throughput::poll(target, &mut args)?,
        "roundtrip" => sequential::round_trip(target, &mut args)?,
        "sequence" => sequential::sequence(target, &mut args)?,
        "scenario" => compare::scenario(target, &mut args)?,
        "caps" => compare::caps(target, &mut args)?,
        "start" => sequential::start(target, &mut args)?,
        "pages" => sequential::pages(target, &mut args)?,
        other => return Err(format!("unknown command '{other}'\n\n{USAGE}").into()),
    };
    println!("{}", args.with_tags(figures));
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    // `cargo bench` passes an argument of its own and no command.
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let Some(command) = words.next() else {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    let outcome = processes::raise_descriptor_limit()
        .and_then(|()| Args::parse(words))
        .and_then(|args| run(&command, args));
    outcome.unwrap_or_else(|error| {
        eprintln!("load {command}: {error}");
        ExitCode::FAILURE
    })
}
