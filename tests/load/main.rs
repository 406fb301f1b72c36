//! The load generator behind scripts/bench.sh, siege.sh and compare.sh: one thread, non-blocking sockets, loopback only.
//! Every load checks the content of every answer, is bounded in count and time, and prints one line
//! of JSON.

mod args;
mod attack;
mod compare;
mod fanout;
mod flock;
mod floor;
mod probe;
mod processes;
mod rates;
mod report;
mod siege;
mod single;
mod stats;
mod target;
mod wire;

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use args::Args;
use target::Target;
use wire::Outcome;

const USAGE: &str = "\
load COMMAND --server longpoll|nchan|floor --port PORT [--NAME VALUE]... [--tag NAME=VALUE]...

  fanout     --polls 1000 --repeats 20    one publish to many held polls, time to the last answer
  memory     --polls 1000 --pid PID [--quiet S]  resident memory of a process and its children,
                                          idle and with polls held; over S seconds of quiet,
                                          its CPU time and how often its threads wake
  publish    --connections 16 --seconds 2 [--topics N] [--retained N]
                                          [--prefix-polls N] [--other-polls N]
  poll       --connections 16 --seconds 2 polls that are answered at once with one event
  roundtrip  --rounds 3000                one publisher, one poller, publish to answer
  sequence   --kind publish|poll --count 1000  the same request on one connection
  start      --repeats 5 -- COMMAND...    from spawn to the first 200 of a command that
                                          listens on PORT
  pages      --events 10000 --repeats 5   reading a history in pages of 1,000 events
  floor      [--port PORT] [--lifetime S] is the floor server: prints where it listens
  siege      --case silent|heads|bodies|readers|polls|greedy|NAME --pid PID [--seconds 30] [--attackers N]
             --max-connections 64 --max-polls 56 --write-timeout 2 [-- COMMAND...]
                                          an attack next to a probe; what else is named is
                                          the attack of a COMMAND; prints a row of Markdown
  lane       --method NAME --clients 10 --rate 50 --seconds 5 --pid PID
                                          [--seed N] [--round-trip-ms N]
                                          events at random times, and clients that all learn of
                                          them by one method
  caps       --polls 500 --beyond 50 --pid PID  polls held to their cap, more beyond it, a publish
  comparison --results FILE [--json FILE] [--svg FILE]
                                          Markdown, verdicts and a picture from both
  free-port                               prints a port that nobody listens on
  report     --results FILE [--json FILE] [--foreign PERCENT] [--busy-limit PERCENT]
                                          Markdown from lines of figures

Every load needs a fresh server. Tags are copied into the line of figures. Wrong answers end the run with status 1.";

fn run(command: &str, args: Args) -> Outcome<ExitCode> {
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
    let server = args.text("server").ok_or("--server is needed")?;
    let target = Target::parse(&server, args.number("port", 0)?)?;
    let figures = match command {
        "fanout" => fanout::run(target, &mut args)?,
        "memory" => fanout::memory(target, &mut args)?,
        "publish" => rates::publish(target, &mut args)?,
        "poll" => rates::poll(target, &mut args)?,
        "roundtrip" => single::round_trip(target, &mut args)?,
        "sequence" => single::sequence(target, &mut args)?,
        "lane" => compare::lane(target, &mut args)?,
        "caps" => compare::caps(target, &mut args)?,
        "start" => single::start(target, &mut args)?,
        "pages" => single::pages(target, &mut args)?,
        other => return Err(format!("unknown command '{other}'\n\n{USAGE}").into()),
    };
    println!("{}", args.tagged(figures));
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    // `cargo bench` adds an argument of its own, and gives none of ours.
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
