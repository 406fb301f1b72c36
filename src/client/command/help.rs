//! The help texts of the two client commands. Tests derive the man page and the shell completions
//! from them, so they are the one list of the flags.

/// The output of `longpoll follow --help`.
pub const FOLLOW_HELP: &str = "\
longpoll follow: prints events as they are published, without loss or repeat

Usage: longpoll follow [flags] URL TOPICS

  URL     http://HOST[:PORT][/PREFIX] or unix:/PATH
  TOPICS  one or more, comma-separated; sensors.* matches all with that prefix

  --since WHERE       where to begin: start, now, last:N or a cursor [start]
  --state FILE        saves the cursor in FILE; a saved cursor overrides --since
  --type TYPES        only events of these types, comma-separated [all]
  --format FORMAT     ndjson: one line per event; raw: the event's own bytes and
                      a line end; json: one line per response, with its cursor;
                      or a template line with {seq} {topic} {time} {type} {data}
                      {json} and the escapes \\t, \\n, \\\\, {{ and }} [ndjson]
  --exec COMMAND      instead of printing, runs COMMAND (sh -c) for each event:
                      stdin is the event as --format says, the environment has
                      LONGPOLL_SEQ, _TOPIC, _TIME and _TYPE; a failed COMMAND
                      runs again until it succeeds, and later events wait
  --on-gap WHAT       when events are lost: fail (exit status 3) or skip (report
                      the gap and continue) [fail]
  --count N           exits after N events
  --wait TIME         how long to hold one poll; 0: exit when caught up [25s]
  --token-file FILE   a file with the token to send, read for each request
  -h, --help          print this help

Reconnects automatically. The cursor is saved after the event is printed (or its
command has succeeded): after a crash, events that were not saved are repeated.
Exit status: 0 finished, or stopped by SIGINT or SIGTERM; 1 failure; 2 invalid
usage; 3 events were lost. TIME: a number with ms, s, m or h.
";

/// The output of `longpoll publish --help`.
pub const PUBLISH_HELP: &str = "\
longpoll publish: publishes events, each exactly once even after retries

Usage: longpoll publish [flags] URL TOPIC [DATA|-]

  URL    http://HOST[:PORT][/PREFIX] or unix:/PATH
  DATA   the event; without DATA, or with -, events are read from stdin

  --json              DATA is JSON, not text
  --stdin WHAT        json: one JSON value per line, each an event; text: one
                      text per line, each an event; whole: one event [json]
  --type TYPE         the event type of each event
  --key KEY           an Idempotency-Key for one event, so that the same command
                      can be repeated (10 minutes, with its retries) [random]
  --retry-for TIME    how long to retry, at most 8m [1m]
  --token-file FILE   a file with the token to send, read for each request
  -h, --help          print this help

Lines are published as soon as they are read, up to 1000 lines or 1 MiB at once;
such a batch is published whole or not at all. Prints the server's response or,
for lines, a summary: {\"topic\",\"count\",\"seq\",\"cursor\"}.
Exit status: 0 everything is published; 1 not everything (stderr says how many
events are); 2 invalid usage. TIME: a number with ms, s, m or h.
";
