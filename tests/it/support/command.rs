//! The client commands as running programs, and a server that says what a test wants it to.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use super::{HANG, program};

/// A command that runs; killed when dropped.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
}

fn lines_of(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            line.clear();
            if send.send(text).is_err() {
                return;
            }
        }
    });
    lines
}

impl Running {
    /// Starts the program with these arguments.
    pub fn start(args: &[&str]) -> Running {
        let mut command = program();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let lines = lines_of(child.stdout.take().unwrap());
        let errors = lines_of(child.stderr.take().unwrap());
        Running { child, lines, errors }
    }

    /// The next line on stdout.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(HANG).expect("a line on stdout")
    }

    pub fn has_line(&self) -> bool {
        self.lines.try_recv().is_ok()
    }

    /// So many lines from stdout.
    pub fn take(&self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// The next line on stderr that has this in it.
    pub fn error(&self, part: &str) -> String {
        loop {
            let line = self.errors.recv_timeout(HANG).unwrap_or_else(|_| panic!("no {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    pub fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("it is open")
    }

    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    pub fn signal(&self, signal: i32) {
        self::signal(self.child.id(), signal);
    }

    /// Waits for the end: the exit code, and what was left on stdout and stderr.
    pub fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        self.close_stdin();
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(HANG) {
                Ok(line) => rest.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it printed {rest:?}"),
            }
        }
        let errors: Vec<_> = self.errors.iter().collect();
        (self.child.wait().unwrap().code(), rest, errors.join("\n"))
    }

    /// Ends it as a power cut would, and returns what it had printed by then.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a program.
pub fn end_of(child: Child) -> Output {
    let pid = child.id();
    let (send, ended) = channel();
    std::thread::spawn(move || send.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(HANG).unwrap_or_else(|_| {
        signal(pid, 9);
        panic!("it does not end")
    })
}

fn signal(pid: u32, signal: i32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Runs a command to its end.
pub fn run(args: &[&str]) -> Output {
    program().args(args).output().unwrap()
}

/// Runs a command to its end, with this on stdin.
pub fn run_with(args: &[&str], input: impl AsRef<[u8]>) -> Output {
    let folder = Folder::new();
    std::fs::write(folder.path("stdin"), input).unwrap();
    program().args(args).stdin(File::open(folder.path("stdin")).unwrap()).output().unwrap()
}

/// Checks that a command failed, and that its message says all of this.
pub fn failed(output: &Output, code: i32, says: &[&str]) {
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{message}");
    for word in says {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

/// A line for each number below this.
pub fn numbers(count: u32) -> String {
    (0..count).map(|n| n.to_string() + "\n").collect()
}

/// A folder of its own for a test; removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("longpoll-{}-{}", std::process::id(), COUNT.fetch_add(1, SeqCst));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server that the test plays itself.
pub struct Fake(TcpListener);

/// A connection to it.
pub struct Caller(BufReader<TcpStream>);

impl Fake {
    pub fn new() -> Fake {
        let fake = Fake(TcpListener::bind("127.0.0.1:0").unwrap());
        // Whoever waits for a connection does not wait for ever.
        rustix::net::sockopt::set_socket_timeout(
            &fake.0,
            rustix::net::sockopt::Timeout::Recv,
            Some(HANG),
        )
        .unwrap();
        fake
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn accept(&self) -> Caller {
        let (stream, _) = self.0.accept().expect("a connection");
        stream.set_read_timeout(Some(HANG)).unwrap();
        // What is sent in pieces arrives in pieces.
        stream.set_nodelay(true).unwrap();
        Caller(BufReader::new(stream))
    }

    /// Takes a connection and answers its request; returns the request's head.
    pub fn serve(&self, answer: impl AsRef<[u8]>) -> String {
        let mut caller = self.accept();
        let request = caller.request();
        caller.send(answer);
        request
    }
}

impl Caller {
    /// The next request's head.
    pub fn head(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.0.read_line(&mut head).unwrap() > 0, "ended after {head:?}");
        }
        head
    }

    /// The next request's head; its body, if it has one, is read and dropped.
    pub fn request(&mut self) -> String {
        let head = self.head();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<u64>().unwrap())
        });
        let mut body = (&mut self.0).take(length.unwrap_or(0));
        std::io::copy(&mut body, &mut std::io::sink()).unwrap();
        head
    }

    pub fn send(&mut self, answer: impl AsRef<[u8]>) {
        // Of a very large one it need not take all.
        let _ = self.0.get_mut().write_all(answer.as_ref());
    }

    /// Ends the connection as a machine does that knows nothing of it.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.0.get_ref(), Some(Duration::ZERO)).unwrap();
    }
}

/// An answer's bytes.
pub fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// A poll's answer with events of these seqs in the topic news, each with its seq as data.
pub fn page(seqs: &[u64], next: &str, reason: &str) -> String {
    let events: Vec<String> = seqs
        .iter()
        .map(|seq| {
            format!(
                r#"{{"seq":{seq},"topic":"news","time":"2026-11-20T12:00:00.123Z","data":{seq}}}"#
            )
        })
        .collect();
    let body = format!(
        r#"{{"events":[{}],"next":"{next}","more":false,"behind":0,"reason":"{reason}"}}"#,
        events.join(",")
    );
    answer("200 OK", "Content-Type: application/json\r\n", &body)
}
