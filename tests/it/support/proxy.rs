//! A proxy that does to connections what networks do: cuts them, eats answers, says nothing.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

/// What becomes of one connection.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Honest,
    /// Cut after so many bytes of what the server sends.
    Cut(usize),
    /// The server gets the request; its answer gets nowhere.
    Eaten,
    /// Nothing is passed on in either direction.
    Silent,
}

type Fates = Box<dyn FnMut() -> Fate + Send>;

/// Runs until the test's process ends, as its connections do.
pub struct Proxy {
    pub address: SocketAddr,
    upstream: Arc<Mutex<SocketAddr>>,
    /// Connections that came to a bad end.
    broken: Arc<AtomicUsize>,
}

impl Proxy {
    /// A proxy before this server; `fates` is asked for each connection.
    pub fn start(upstream: SocketAddr, fates: impl FnMut() -> Fate + Send + 'static) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            address: listener.local_addr().unwrap(),
            upstream: Arc::new(Mutex::new(upstream)),
            broken: Arc::default(),
        };
        let (upstream, broken) = (Arc::clone(&proxy.upstream), Arc::clone(&proxy.broken));
        let mut fates: Fates = Box::new(fates);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (fate, client) = (fates(), client.unwrap());
                let (upstream, broken) = (*upstream.lock().unwrap(), Arc::clone(&broken));
                std::thread::spawn(move || pass(client, upstream, fate, &broken));
            }
        });
        proxy
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sends connections from now on to another server.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap() = upstream;
    }

    pub fn broken(&self) -> usize {
        self.broken.load(SeqCst)
    }
}

fn pass(mut client: TcpStream, upstream: SocketAddr, fate: Fate, broken: &AtomicUsize) {
    if matches!(fate, Fate::Silent) {
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
    let mut left = match fate {
        Fate::Cut(bytes) => bytes,
        Fate::Eaten => 0,
        Fate::Honest | Fate::Silent => usize::MAX,
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
