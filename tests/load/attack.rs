//! Hostile clients that occupy connections or polls: one thread with non-blocking sockets, a fixed
//! number of attackers at a time.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::LoadResult;
use crate::processes::ChildProcess;

/// What an attacker does with its connection.
#[derive(Clone, Copy, PartialEq)]
pub enum AttackKind {
    /// Sends nothing.
    Silent,
    /// Sends an endless request head, one byte at a time.
    Heads,
    /// Sends half a request body.
    Bodies,
    /// Requests more than any buffer holds, and reads nothing.
    Readers,
    /// Polls, and reconnects after each response.
    Polls,
    /// Like `Polls`, but a proxy names the same client for all connections.
    Greedy,
    /// Polls all of many topics, each with a limit of its own, and again at once after each event.
    Stars,
}

/// The topic that `Readers` request. Its event is slightly smaller than the responses for which a
/// server extends the write time-out.
pub const LARGE_TOPIC: &str = "large";
pub const LARGE_BYTES: usize = 15_000;
/// This many responses of that size exceed all buffers between server and client.
const PIPELINED: usize = 600;
const POLL: &str = "GET /topics/siege?since=now&wait=55 HTTP/1.1\r\n";
/// Between two bytes of an endless head.
const BYTE_INTERVAL: Duration = Duration::from_millis(100);
/// Longer than the kernel needs to queue a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(200);

impl AttackKind {
    /// The attack named `name`; `None` for the name of another program's attack.
    pub fn parse(name: &str) -> Option<AttackKind> {
        Some(match name {
            "silent" => AttackKind::Silent,
            "heads" => AttackKind::Heads,
            "bodies" => AttackKind::Bodies,
            "readers" => AttackKind::Readers,
            "polls" => AttackKind::Polls,
            "greedy" => AttackKind::Greedy,
            "stars" => AttackKind::Stars,
            _ => return None,
        })
    }

    /// What the attacker with this number sends first.
    fn first_bytes(self, number: usize) -> Vec<u8> {
        let host = "Host: localhost\r\n";
        let text = match self {
            AttackKind::Silent => String::new(),
            AttackKind::Heads => format!("GET /health HTTP/1.1\r\n{host}X-More: "),
            AttackKind::Bodies => {
                let head = format!("POST /topics/siege HTTP/1.1\r\n{host}Content-Length: 60000");
                format!("{head}\r\n\r\n{}", "x".repeat(30_000))
            }
            AttackKind::Readers => {
                format!("GET /topics/{LARGE_TOPIC}?format=raw HTTP/1.1\r\n{host}\r\n")
                    .repeat(PIPELINED)
            }
            AttackKind::Polls => format!("{POLL}{host}\r\n"),
            AttackKind::Greedy => format!("{POLL}{host}X-Forwarded-For: 203.0.113.9\r\n\r\n"),
            AttackKind::Stars => {
                let limit = number % 1_000 + 1;
                let target = format!("/topics/*?since=now&wait=55&limit={limit}");
                format!("GET {target} HTTP/1.1\r\n{host}\r\n")
            }
        };
        text.into_bytes()
    }

    /// How long an attacker waits before it reconnects. When all workers are serving requests, the
    /// next free one goes to the first connection in the queue; against hundreds of attackers that
    /// reconnect immediately, only the cap per client helps.
    fn reconnect_delay(self) -> Duration {
        match self {
            AttackKind::Silent | AttackKind::Heads | AttackKind::Bodies | AttackKind::Stars => {
                Duration::ZERO
            }
            AttackKind::Readers => Duration::from_secs(2),
            AttackKind::Polls | AttackKind::Greedy => Duration::from_millis(250),
        }
    }

    /// The events after which an attacker gives up its connection.
    fn end_events(self) -> PollFlags {
        match self {
            AttackKind::Polls | AttackKind::Greedy | AttackKind::Stars => {
                PollFlags::IN | PollFlags::RDHUP
            }
            _ => PollFlags::RDHUP,
        }
    }
}

struct Attacker {
    socket: Option<TcpStream>,
    reconnect_at: Instant,
}

/// A fixed number of attackers of one kind, which reconnect when their connections are closed.
pub struct Attackers {
    kind: AttackKind,
    port: u16,
    clients: Vec<Attacker>,
    next_byte_at: Instant,
}

impl Attackers {
    pub fn new(kind: AttackKind, count: usize, port: u16) -> Attackers {
        let now = Instant::now();
        let clients = (0..count).map(|_| Attacker { socket: None, reconnect_at: now }).collect();
        Attackers { kind, port, clients, next_byte_at: now }
    }

    fn tick(&mut self) -> LoadResult<()> {
        self.drop_ended()?;
        let now = Instant::now();
        let sends_byte = self.kind == AttackKind::Heads && now >= self.next_byte_at;
        if sends_byte {
            self.next_byte_at = now + BYTE_INTERVAL;
        }
        for (number, attacker) in self.clients.iter_mut().enumerate() {
            match &mut attacker.socket {
                // The next tick notices a connection that the server has closed.
                Some(socket) if sends_byte => drop(socket.write(b"x")),
                None if now >= attacker.reconnect_at => {
                    attacker.socket = connect(self.kind, self.port, number);
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn drop_ended(&mut self) -> LoadResult<()> {
        let connected = self.clients.iter().filter_map(|attacker| attacker.socket.as_ref());
        let mut polled: Vec<_> =
            connected.map(|socket| PollFd::new(socket, self.kind.end_events())).collect();
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let ended: Vec<_> = polled.iter().map(|socket| !socket.revents().is_empty()).collect();
        let reconnect_at = Instant::now() + self.kind.reconnect_delay();
        let connected = self.clients.iter_mut().filter(|attacker| attacker.socket.is_some());
        for (attacker, _) in connected.zip(ended).filter(|(_, ended)| *ended) {
            *attacker = Attacker { socket: None, reconnect_at };
        }
        Ok(())
    }
}

/// `None` if the server does not accept a connection now.
fn connect(kind: AttackKind, port: u16, number: usize) -> Option<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).ok()?;
    socket.set_nonblocking(true).ok()?;
    if kind == AttackKind::Readers {
        set_socket_recv_buffer_size(&socket, 1).ok()?;
    }
    // The attack needs neither the bytes that do not fit nor the success of the write.
    drop(socket.write(&kind.first_bytes(number)));
    Some(socket)
}

/// A running attack; dropping it ends it.
pub enum Attack {
    BuiltIn(Attackers),
    /// Another program, such as slowhttptest.
    Program(#[allow(dead_code, reason = "dropping it ends the program")] ChildProcess),
}

impl Attack {
    /// Continues the attack; the caller calls this repeatedly.
    pub fn tick(&mut self) -> LoadResult<()> {
        match self {
            Attack::BuiltIn(attackers) => attackers.tick(),
            Attack::Program(_) => Ok(()),
        }
    }
}
