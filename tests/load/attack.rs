//! `ClientLimiter` that take places and give nothing: one thread, non-blocking sockets, so many at a time.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::set_socket_recv_buffer_size;

use crate::processes::Child;
use crate::wire::Outcome;

/// What an attacker does with its connection.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Says nothing.
    Silent,
    /// Sends a head that does not end, a byte at a time.
    Heads,
    /// Sends half a body.
    Bodies,
    /// Asks for more than any buffer takes, and reads nothing.
    Readers,
    /// Polls, and comes back when it has an answer.
    Polls,
    /// The same, but all of them are one client behind a proxy.
    Greedy,
}

/// A topic with one event, which is not much smaller than what answers may have before their time
/// grows.
pub const LARGE: &str = "large";
pub const LARGE_BYTES: usize = 15_000;
/// So many such answers fit into no buffer together.
const PIPELINED: usize = 600;
const POLL: &str = "GET /topics/siege?since=now&wait=55 HTTP/1.1\r\n";
/// Between two bytes of an attacker that sends them one at a time.
const DRIP: Duration = Duration::from_millis(100);
/// Longer than it takes to be let into the kernel's queue.
const CONNECT: Duration = Duration::from_millis(200);

impl Kind {
    fn opening(self) -> Vec<u8> {
        let host = "Host: localhost\r\n";
        let text = match self {
            Kind::Silent => String::new(),
            Kind::Heads => format!("GET /health HTTP/1.1\r\n{host}X-More: "),
            Kind::Bodies => {
                let head = format!("POST /topics/siege HTTP/1.1\r\n{host}Content-Length: 60000");
                format!("{head}\r\n\r\n{}", "x".repeat(30_000))
            }
            Kind::Readers => {
                format!("GET /topics/{LARGE}?format=raw HTTP/1.1\r\n{host}\r\n").repeat(PIPELINED)
            }
            Kind::Polls => format!("{POLL}{host}\r\n"),
            Kind::Greedy => format!("{POLL}{host}X-Forwarded-For: 203.0.113.9\r\n\r\n"),
        };
        text.into_bytes()
    }

    /// When an attacker whose connection has ended comes back. Where requests are being answered in
    /// all places, the next free one goes to whoever is there first, and hundreds that never cease
    /// to come are: those are kept out by the cap on each client, not by this.
    fn pause(self) -> Duration {
        match self {
            Kind::Silent | Kind::Heads | Kind::Bodies => Duration::ZERO,
            Kind::Readers => Duration::from_secs(2),
            Kind::Polls | Kind::Greedy => Duration::from_millis(250),
        }
    }

    /// What tells that a connection has ended, or has served its purpose.
    fn over(self) -> PollFlags {
        match self {
            Kind::Polls | Kind::Greedy => PollFlags::IN | PollFlags::RDHUP,
            _ => PollFlags::RDHUP,
        }
    }
}

struct Attacker {
    socket: Option<TcpStream>,
    back_at: Instant,
}

/// So many attackers of a kind. Whoever is thrown out comes back.
pub struct Crowd {
    kind: Kind,
    port: u16,
    opening: Vec<u8>,
    attackers: Vec<Attacker>,
    next_drip: Instant,
}

impl Crowd {
    pub fn new(kind: Kind, count: usize, port: u16) -> Crowd {
        let now = Instant::now();
        let attackers = (0..count).map(|_| Attacker { socket: None, back_at: now }).collect();
        Crowd { kind, port, opening: kind.opening(), attackers, next_drip: now }
    }

    fn tick(&mut self) -> Outcome<()> {
        self.leave_what_is_over()?;
        let now = Instant::now();
        let drips = self.kind == Kind::Heads && now >= self.next_drip;
        if drips {
            self.next_drip = now + DRIP;
        }
        for attacker in &mut self.attackers {
            match &mut attacker.socket {
                // One that has been thrown out is seen next time.
                Some(socket) if drips => drop(socket.write(b"x")),
                None if now >= attacker.back_at => {
                    attacker.socket = enter(self.kind, self.port, &self.opening);
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    fn leave_what_is_over(&mut self) -> Outcome<()> {
        let present = self.attackers.iter().filter_map(|attacker| attacker.socket.as_ref());
        let mut polled: Vec<_> =
            present.map(|socket| PollFd::new(socket, self.kind.over())).collect();
        poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let over: Vec<_> = polled.iter().map(|socket| !socket.revents().is_empty()).collect();
        let back_at = Instant::now() + self.kind.pause();
        let present = self.attackers.iter_mut().filter(|attacker| attacker.socket.is_some());
        for (attacker, _) in present.zip(over).filter(|(_, over)| *over) {
            *attacker = Attacker { socket: None, back_at };
        }
        Ok(())
    }
}

/// None when there is no way in at the moment.
fn enter(kind: Kind, port: u16, opening: &[u8]) -> Option<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut socket = TcpStream::connect_timeout(&address, CONNECT).ok()?;
    socket.set_nonblocking(true).ok()?;
    if kind == Kind::Readers {
        set_socket_recv_buffer_size(&socket, 1).ok()?;
    }
    // What does not fit, or comes too late, is not missed.
    drop(socket.write(opening));
    Some(socket)
}

/// An attack that is going on; it ends when this is dropped.
pub enum Attack {
    Crowd(Crowd),
    /// Somebody else's program.
    Program(#[allow(dead_code, reason = "it ends the program when it is dropped")] Child),
}

impl Attack {
    /// Goes on with it; to be called all the time.
    pub fn tick(&mut self) -> Outcome<()> {
        match self {
            Attack::Crowd(crowd) => crowd.tick(),
            Attack::Program(_) => Ok(()),
        }
    }
}
