//! Servers and proxies that do what no good one does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rustls::{ServerConnection, StreamOwned};

pub type TlsStream = StreamOwned<ServerConnection, TcpStream>;

/// A TLS server whose every connection does what a test wants, one after the other.
pub struct Odd(SocketAddr);

impl Odd {
    pub fn config(config: Arc<rustls::ServerConfig>, script: impl Fn(&mut TlsStream) + Send + 'static) -> Odd {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut stream = StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), socket.unwrap());
                while stream.conn.is_handshaking() {
                    if stream.conn.complete_io(&mut stream.sock).is_err() {
                        break;
                    }
                }
                script(&mut stream);
            }
        });
        Odd(address)
    }

    pub fn tls(key: Arc<rustls::sign::CertifiedKey>, script: impl Fn(&mut TlsStream) + Send + 'static) -> Odd {
        #[derive(Debug)]
        struct Fixed(Arc<rustls::sign::CertifiedKey>);
        impl rustls::server::ResolvesServerCert for Fixed {
            fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<rustls::sign::CertifiedKey>> {
                Some(self.0.clone())
            }
        }
        Odd::config(vmetric::io::tls::server_config(Arc::new(Fixed(key))), script)
    }

    pub fn url(&self) -> String {
        format!("https://{}/", self.0)
    }
}

/// Reads a request of the client: the head and the two bytes `{}`.
pub fn read_request(stream: &mut impl Read) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n{}") && matches!(stream.read(&mut byte), Ok(1)) {
        seen.push(byte[0]);
    }
}

/// A proxy that knows CONNECT; what it was asked is sent back.
pub fn connect_proxy(answer: &'static str) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, asked) = channel();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && matches!(client.read(&mut byte), Ok(1)) {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            let target = head.split(' ').nth(1).unwrap().to_string();
            let _ = tell.send(head);
            client.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes()).unwrap();
            if answer.starts_with("200") {
                let server = TcpStream::connect(target).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to).map(|_| to.shutdown(std::net::Shutdown::Both)));
                let (mut from, mut to) = (server, client);
                std::thread::spawn(move || std::io::copy(&mut from, &mut to).map(|_| to.shutdown(std::net::Shutdown::Both)));
            }
        }
    });
    (address, asked)
}
