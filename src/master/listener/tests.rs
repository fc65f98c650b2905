//! Clients that say nothing, or too little, or take their time; with real sockets.

use http::StatusCode;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use barque_entrance::Bounds;

use super::*;
use crate::{master::front, tls};

#[derive(Clone)]
struct Echo;

impl Handler for Echo {
    async fn handle(&self, request: Request<Incoming>, _: Remote) -> Response<Body> {
        if request.uri().path() == "/watch" {
            let nothing = futures_util::stream::pending::<Result<bytes::Bytes, Infallible>>();
            return Response::new(Body::Http(axum::body::Body::from_stream(nothing)));
        }
        front::page(StatusCode::OK, front::TEXT, request.uri().path().to_owned())
    }
}

struct Served {
    address: SocketAddr,
    entrance: Entrance,
    _drain: Drain,
}

/// What a short patience is: whoever is tested here asks at once, or never.
const SHORT: Duration = Duration::from_millis(50);

const MANNERS: Manners = Manners {
    streams: 10,
    idle_timeout: None,
};

fn serve_with(bounds: Bounds, tls: Option<Arc<ServerConfig>>) -> Served {
    serve_on(bounds, tls, MANNERS)
}

fn serve_on(bounds: Bounds, tls: Option<Arc<ServerConfig>>, manners: Manners) -> Served {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let entrance = Entrance::new("test", bounds);
    let terms = Terms {
        entrance: entrance.clone(),
        manners,
    };
    let drain = Drain::default();
    drain.track(accept_loop(Listener { socket, tls }, Echo, terms, drain.clone()));
    Served {
        address,
        entrance,
        _drain: drain,
    }
}

fn serve(patience: Duration) -> Served {
    serve_with(Bounds::shared(100, 1000, patience), None)
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// Returns when the other end has closed: what else it sends, and how it closes, is not looked at.
async fn closed(stream: &mut TcpStream) {
    while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
}

async fn ask(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

fn server_config() -> Arc<ServerConfig> {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}

/// Thousands of them may be held at once.
#[tokio::test]
async fn a_silent_connection_costs_little() {
    let service = Arc::new(Service {
        acceptor: Some(TlsAcceptor::from(server_config())),
        handler: Echo,
        manners: MANNERS,
        drain: Drain::default(),
    });
    let served = serve(SHORT);
    let visitor = served
        .entrance
        .enter(served.connect().await, served.address)
        .unwrap();
    let task_bytes = std::mem::size_of_val(&greet(visitor, service));
    assert!(task_bytes <= 1024, "{task_bytes}");
}

#[tokio::test]
async fn who_says_nothing_is_closed() {
    for tls in [None, Some(server_config())] {
        let served = serve_with(Bounds::shared(100, 1000, SHORT), tls);
        let mut silent = served.connect().await;
        closed(&mut silent).await;
        assert_eq!(served.entrance.figures().late, 1);
    }
}

#[tokio::test]
async fn who_never_comes_to_the_end_of_asking_is_closed() {
    for (tls, said) in [
        (None, "GET / HTTP/1.1\r\nx: "),
        (None, "PRI * HTTP/2.0\r\n"),
        (Some(server_config()), "\u{16}\u{3}\u{1}\u{1}\u{0}"),
    ] {
        let served = serve_with(Bounds::shared(100, 1000, SHORT), tls);
        let mut client = served.connect().await;
        for byte in said.bytes() {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        closed(&mut client).await;
        assert_eq!(served.entrance.figures().late, 1, "{said:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_says_nothing_more_is_closed() {
    let served = serve_with(Bounds::shared(100, 1000, SHORT), Some(server_config()));
    let config = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, served.connect().await).await.unwrap();
    while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
    assert_eq!(served.entrance.figures().late, 1);
}

#[tokio::test]
async fn who_has_asked_once_may_take_all_the_time() {
    let served = serve(SHORT);
    let mut client = served.connect().await;
    assert!(ask(&mut client).await.starts_with("HTTP/1.1 200 OK"));
    let mut http2 = served.connect().await;
    http2
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    // Its settings, which it sends when it has read the preface.
    http2.read_u8().await.unwrap();
    // The time of those that came later is over, too.
    let mut silent = served.connect().await;
    closed(&mut silent).await;
    assert!(ask(&mut client).await.starts_with("HTTP/1.1 200 OK"));
    let figures = served.entrance.figures();
    assert_eq!((figures.connections, figures.newcomers, figures.late), (2, 0, 1));
}

type Http2 = hyper::client::conn::http2::SendRequest<http_body_util::Empty<bytes::Bytes>>;

/// A client of HTTP/2, and its connection's end.
async fn http2(served: &Served) -> (Http2, tokio::task::JoinHandle<()>) {
    let stream = TokioIo::new(served.connect().await);
    let (client, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
        .await
        .unwrap();
    let ended = tokio::spawn(async move { drop(connection.await) });
    (client, ended)
}

async fn get(client: &mut Http2, path: &str) -> Response<Incoming> {
    let request = Request::get(format!("http://a{path}")).body(http_body_util::Empty::new());
    client.send_request(request.unwrap()).await.unwrap()
}

#[tokio::test]
async fn what_is_of_no_use_any_more_is_closed_and_what_has_a_watch_is_not() {
    let manners = Manners {
        idle_timeout: Some(SHORT),
        ..MANNERS
    };
    let bounds = Bounds::shared(100, 1000, Duration::from_secs(600));
    let served = serve_on(bounds, None, manners);
    let (mut watcher, _) = http2(&served).await;
    let watch = get(&mut watcher, "/watch").await;
    // Two in turn: while they came and went the watch's time would have been over twice.
    for _ in 0..2 {
        let (mut client, ended) = http2(&served).await;
        assert_eq!(get(&mut client, "/x").await.status(), StatusCode::OK);
        ended.await.unwrap();
    }
    assert_eq!(get(&mut watcher, "/x").await.status(), StatusCode::OK);
    drop(watch);
}

#[tokio::test]
async fn a_client_is_served_beside_a_room_full_of_silent_ones() {
    for tls in [None, Some(server_config())] {
        let served = serve_with(Bounds::shared(20, 1000, Duration::from_secs(600)), tls.clone());
        let mut silent = Vec::new();
        for _ in 0..300 {
            silent.push(served.connect().await);
        }
        let mut client = served.connect().await;
        match tls {
            None => assert!(ask(&mut client).await.starts_with("HTTP/1.1 200 OK")),
            // A record that is none is answered by an alert.
            Some(_) => {
                client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
                assert_eq!(client.read_u8().await.unwrap(), 0x15);
            }
        }
        // The oldest had to go; it was not waited for.
        closed(&mut silent[0]).await;
        assert!(served.entrance.figures().displaced >= 280);
    }
}

#[tokio::test]
async fn a_refused_handshake_is_counted_and_one_that_hung_up_is_not() {
    let served = serve_with(
        Bounds::shared(20, 1000, Duration::from_secs(600)),
        Some(server_config()),
    );
    let mut plain = served.connect().await;
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(&mut plain).await;
    drop(served.connect().await);
    let mut after = served.connect().await;
    after.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    closed(&mut after).await;
    assert_eq!(served.entrance.figures().failed_handshakes, 2);
}

#[derive(Debug)]
struct Trusting;

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![
            rustls::SignatureScheme::ECDSA_NISTP256_SHA256,
            rustls::SignatureScheme::ED25519,
        ]
    }
}
