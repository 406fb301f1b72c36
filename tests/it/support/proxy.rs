//! A proxy that injects network faults: it cuts connections, drops responses, or goes silent.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What the proxy does with one connection.
#[derive(Clone, Copy, Debug)]
pub enum ProxyMode {
    PassThrough,
    /// Closes the connection after this many bytes from the server.
    CutAfter(usize),
    /// Forwards the request and drops the response.
    DropResponse,
    /// Forwards nothing in either direction.
    Silent,
}

type ModeOfNext = Box<dyn FnMut() -> ProxyMode + Send>;

/// A running proxy. It and its connections run until the test process exits.
pub struct FaultyProxy {
    pub address: SocketAddr,
    upstream: Arc<Mutex<SocketAddr>>,
    /// Number of connections that the proxy broke.
    broken: Arc<AtomicUsize>,
}

impl FaultyProxy {
    /// Starts a proxy in front of a server; `mode_of_next` is called for each connection.
    pub fn start(
        upstream: SocketAddr,
        mode_of_next: impl FnMut() -> ProxyMode + Send + 'static,
    ) -> FaultyProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = FaultyProxy {
            address: listener.local_addr().unwrap(),
            upstream: Arc::new(Mutex::new(upstream)),
            broken: Arc::default(),
        };
        let (upstream, broken) = (Arc::clone(&proxy.upstream), Arc::clone(&proxy.broken));
        let mut mode_of_next: ModeOfNext = Box::new(mode_of_next);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (mode, client) = (mode_of_next(), client.unwrap());
                let (upstream, broken) = (*upstream.lock().unwrap(), Arc::clone(&broken));
                std::thread::spawn(move || forward(client, upstream, mode, &broken));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forwards new connections to another server from now on.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap() = upstream;
    }

    pub fn broken_connections(&self) -> usize {
        self.broken.load(SeqCst)
    }
}

fn forward(mut client: TcpStream, upstream: SocketAddr, mode: ProxyMode, broken: &AtomicUsize) {
    if matches!(mode, ProxyMode::Silent) {
        broken.fetch_add(1, SeqCst);
        let _ = client.read_to_end(&mut Vec::new());
        return;
    }
    let Ok(mut server) = TcpStream::connect(upstream) else { return };
    let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let requests = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut left = match mode {
        ProxyMode::CutAfter(bytes) => bytes,
        ProxyMode::DropResponse => 0,
        ProxyMode::PassThrough | ProxyMode::Silent => usize::MAX,
    };
    let mut chunk = [0; 16 << 10];
    while let Ok(count @ 1..) = server.read(&mut chunk) {
        let passed = count.min(left);
        if client.write_all(&chunk[..passed]).is_err() {
            break;
        }
        left -= passed;
        if passed < count {
            broken.fetch_add(1, SeqCst);
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    let _ = requests.join();
}
