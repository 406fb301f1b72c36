//! Guards the limit of connections per client: no client can take all of them, neither directly nor
//! through a proxy.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::process::Stdio;

use crate::support::{Client, Response, Server, program, wait_until};

const BEHIND_PROXY: [&str; 4] = ["--trust-proxy", "127.0.0.1", "--max-connections-per-client", "2"];

/// Sends a request as a proxy forwards it for the client `forwarded`.
fn send(client: &mut Client, target: &str, forwarded: &str) {
    client.send(format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {forwarded}\r\n\r\n"
    ));
}

fn request(server: &Server, target: &str, forwarded: &str) -> Response {
    let mut client = server.connect();
    send(&mut client, target, forwarded);
    client.response()
}

#[test]
fn behind_a_proxy_each_request_counts_for_its_client_while_it_is_answered() {
    let server = Server::start(&BEHIND_PROXY);
    let wait = "/topics/news?since=now&wait=60";
    let mut held: Vec<Client> = Vec::new();
    for (count, forwarded) in ["6.6.6.6, 198.51.100.7", "198.51.100.7"].iter().enumerate() {
        let mut client = server.connect();
        send(&mut client, wait, forwarded);
        server.wait_until_held(count + 1);
        held.push(client);
    }
    // A proxy's connection carries many clients, so that a refusal does not close it.
    let mut proxy = server.connect();
    send(&mut proxy, "/health", "198.51.100.7");
    let refused = proxy.response();
    assert_eq!(refused.status, 429);
    assert!(refused.detail().contains("--max-connections-per-client"), "{refused:?}");
    assert!(refused.header("Retry-After").is_some());
    for other in ["198.51.100.8", "198.51.100.7, 198.51.100.9", "2001:db8::1"] {
        send(&mut proxy, "/health", other);
        assert_eq!(proxy.response().status, 200, "{other}");
    }
    assert_eq!(server.metric("refusals_total{cause=\"client_cap\"}"), 1.0);
    server.publish("news", "hello");
    for client in &mut held {
        assert_eq!(client.response().data(), ["hello"]);
    }
    // The permit is released after the response is sent, so that the client may see it earlier.
    wait_until("the client's permit is released", || {
        request(&server, "/health", "198.51.100.7").status == 200
    });
}

#[test]
fn ipv6_addresses_of_one_slash_64_are_one_client() {
    let server = Server::start(&BEHIND_PROXY);
    for (count, address) in ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"].iter().enumerate() {
        let mut client = server.connect();
        send(&mut client, "/topics/news?since=now&wait=60", address);
        server.wait_until_held(count + 1);
        std::mem::forget(client);
    }
    assert_eq!(request(&server, "/health", "2001:db8:0:1::3").status, 429);
    assert_eq!(request(&server, "/health", "2001:db8:0:2::3").status, 200);
}

#[test]
fn untrusted_peer_cannot_set_the_client_address() {
    let server = Server::start(&["--trust-proxy", "10.0.0.1", "--max-connections-per-client", "1"]);
    let _held: Vec<Client> = (0..5)
        .map(|count| {
            let mut client = server.connect();
            send(&mut client, "/topics/news?since=now&wait=60", "198.51.100.7");
            server.wait_until_held(count + 1);
            client
        })
        .collect();
    assert_eq!(request(&server, "/health", "198.51.100.7").status, 200);
}

/// An address of this machine that is not loopback; finding it sends no packet.
fn own_address() -> Option<SocketAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().filter(|address| !address.ip().is_loopback())
}

#[test]
fn direct_client_is_limited_and_the_log_names_the_refused_address() {
    let Some(mut address) = own_address() else {
        println!("skipped: this machine has only loopback");
        return;
    };
    address.set_port(0);
    let mut command = program();
    command.args(["--listen", &address.to_string(), "--max-connections-per-client", "2"]);
    let mut server = Server::spawn(command.stderr(Stdio::piped()));
    let mut lines = BufReader::new(server.stderr()).lines().map(Result::unwrap);
    let mut both: Vec<Client> = (0..2).map(|_| server.connect()).collect();
    for client in &mut both {
        assert_eq!(client.get("/health").status, 200);
    }
    for _ in 0..50 {
        let refused = server.connect().response();
        assert_eq!((refused.status, refused.header("Connection")), (429, Some("close")));
    }
    drop(both);
    wait_until("the client's permits are released", || {
        let mut client = server.connect();
        client.send_request("GET", "/health");
        client.response().status == 200
    });
    server.signal(15);
    assert!(server.wait().0.success());
    let exposed = lines.find(|line| line.contains("warning")).unwrap();
    assert!(
        exposed.contains("--tokens") && exposed.contains(&address.ip().to_string()),
        "{exposed}"
    );
    let logged: Vec<String> = lines.filter(|line| line.contains("client_cap")).collect();
    assert!(logged[0].contains(&format!("refused {}:", address.ip())), "{logged:?}");
    assert!(logged[0].contains("429 client_cap: this client has 2"), "{logged:?}");
    // The first refusal is logged at once, the next ones not before the interval is over.
    assert!(logged.len() < 5, "{logged:?}");
}
