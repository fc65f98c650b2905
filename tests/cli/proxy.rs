//! The balancer between a client and backends of this test's own making.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(30);

struct Proxy {
    child: Child,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl Proxy {
    fn start(backends: &[SocketAddr]) -> Proxy {
        Self::start_with(backends, &[])
    }

    fn start_with(backends: &[SocketAddr], args: &[&str]) -> Proxy {
        let (address, metrics) = (free_address(), free_address());
        let mut command = Command::new(env!("CARGO_BIN_EXE_barque"));
        command.args(["proxy", "--log-level", "error", "--listen", &address.to_string()]);
        command.args(["--listen-metrics", &metrics.to_string()]);
        for backend in backends {
            command.args(["--backend", &backend.to_string()]);
        }
        let child = command.args(args).stdin(Stdio::null()).spawn().unwrap();
        let proxy = Proxy {
            child,
            address,
            metrics,
        };
        proxy.connect();
        proxy
    }

    fn connect(&self) -> TcpStream {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect(self.address) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    return stream;
                }
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            thread::yield_now();
        }
    }

    /// What a backend says of itself to a client that asks.
    fn ask(&self) -> String {
        let mut stream = self.connect();
        stream.write_all(b"who?").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn metric(&self, line_start: &str) -> Option<String> {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        page.lines()
            .find_map(|line| line.strip_prefix(line_start))
            .map(|rest| rest.trim().to_owned())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Answers each connection with its name and the bytes that it read, until the process ends.
fn backend(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut question = String::new();
                // A probe connects and goes without a word.
                if stream.read_to_string(&mut question).is_ok() && !question.is_empty() {
                    stream.write_all(format!("{name}:{question}").as_bytes()).unwrap();
                }
            });
        }
    });
    address
}

#[test]
fn a_dead_backend_is_passed_over_within_the_same_connection() {
    let dead = free_address();
    let alive = backend("alive");
    let proxy = Proxy::start(&[dead, alive]);
    for _ in 0..20 {
        assert_eq!(proxy.ask(), "alive:who?");
    }
}

#[test]
fn without_a_backend_the_connection_is_closed() {
    let proxy = Proxy::start(&[free_address()]);
    let mut stream = proxy.connect();
    stream.write_all(b"who?").unwrap();
    let mut nothing = [0; 1];
    match stream.read(&mut nothing) {
        Ok(read) => assert_eq!(read, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[test]
fn connections_to_a_backend_that_dies_are_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(&[listener.local_addr().unwrap()]);
    let mut client = proxy.connect();
    client.write_all(b"x").unwrap();
    let mut held = loop {
        let (mut stream, _) = listener.accept().unwrap();
        let mut byte = [0; 1];
        if stream.read(&mut byte).unwrap() == 1 {
            break stream;
        }
    };
    held.write_all(b"y").unwrap();
    let mut byte = [0; 1];
    client.read_exact(&mut byte).unwrap();
    // It refuses new connections but keeps this one: what a hung process looks like from outside.
    drop(listener);
    assert_eq!(
        client.read(&mut byte).unwrap(),
        0,
        "the balancer ends what the backend does not"
    );
}

#[test]
fn clients_that_say_nothing_keep_nobody_out() {
    let alive = backend("alive");
    let proxy = Proxy::start_with(&[alive], &["--max-connections", "4"]);
    let silent: Vec<TcpStream> = (0..20).map(|_| proxy.connect()).collect();
    assert_eq!(proxy.ask(), "alive:who?");
    let displaced = "barque_connections_closed_total{listener=\"proxy\",reason=\"displaced\"}";
    assert!(proxy.metric(displaced).unwrap().parse::<u64>().unwrap() >= 16);
    drop(silent);
}

#[test]
fn it_counts() {
    let alive = backend("alive");
    let proxy = Proxy::start(&[alive]);
    proxy.ask();
    let labels = format!("{{backend=\"{alive}\"}}");
    let carried = proxy
        .metric(&format!("barque_proxy_connections_carried_total{labels}"))
        .unwrap();
    assert!(carried.parse::<u64>().unwrap() >= 1);
    assert!(
        proxy
            .metric("process_resident_memory_bytes")
            .unwrap()
            .parse::<u64>()
            .unwrap()
            > 0
    );
}
