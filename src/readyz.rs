//! One GET of `/readyz` over a fresh connection: how `up` and the proxy ask a master whether it serves.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

const BODY_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// It answers, and says why it should not be used now.
    Unready(String),
    /// It does not answer: gone, or hung.
    Dead(String),
}

/// Never takes longer than `timeout`.
pub async fn ask(address: SocketAddr, tls: Option<Arc<ClientConfig>>, timeout: Duration) -> Readiness {
    match tokio::time::timeout(timeout, exchange(address, tls)).await {
        Ok(Ok((StatusCode::OK, _))) => Readiness::Ready,
        Ok(Ok((status, body))) => Readiness::Unready(failures(status, &body)),
        Ok(Err(error)) => Readiness::Dead(format!("{error:#}")),
        Err(_) => Readiness::Dead(format!("no answer within {} ms", timeout.as_millis())),
    }
}

/// The checks that failed, of a page that lists all.
fn failures(status: StatusCode, body: &str) -> String {
    let failed: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("[-]")).collect();
    format!("{}: {}", status.as_u16(), failed.join("; "))
}

async fn exchange(
    address: SocketAddr,
    tls: Option<Arc<ClientConfig>>,
) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => get(stream, address).await,
        Some(config) => {
            let name = ServerName::IpAddress(address.ip().into());
            get(TlsConnector::from(config).connect(name, stream).await?, address).await
        }
    }
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    address: SocketAddr,
) -> anyhow::Result<(StatusCode, String)> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/readyz")
        .header("host", address.to_string())
        .body(Empty::<bytes::Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(anyhow::Error::msg)?;
        // Dropping the sender ends the connection's future below.
        drop(sender);
        Ok::<_, anyhow::Error>((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    };
    let (answer, _closed) = tokio::join!(exchange, connection);
    answer
}
