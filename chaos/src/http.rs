//! HTTP/1.1 over one connection, plain or TLS: [`Connection`]. What kubectl does for a list, and Prometheus to scrape.

use std::{fmt, sync::Arc};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::ClientCertificate;

/// Where a server listens and how it is spoken to; cheap to clone.
#[derive(Clone)]
pub struct Server {
    authority: String,
    tls: Option<Arc<ClientConfig>>,
}

impl Server {
    pub fn new(url: &str, certificate: Option<&ClientCertificate>) -> anyhow::Result<Server> {
        let (_, authority) = url
            .split_once("://")
            .with_context(|| format!("{url} is no URL"))?;
        let tls = certificate.map(client_config).transpose()?.map(Arc::new);
        Ok(Server {
            authority: authority.to_owned(),
            tls,
        })
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(&self.authority)
            .await
            .with_context(|| self.authority.clone())?;
        stream.set_nodelay(true)?;
        let sender = match &self.tls {
            None => spawn(TokioIo::new(stream)).await?,
            Some(config) => {
                let host = self
                    .authority
                    .rsplit_once(':')
                    .map_or(self.authority.as_str(), |(host, _)| host);
                let name = ServerName::try_from(host.to_owned())?;
                spawn(TokioIo::new(
                    TlsConnector::from(config.clone()).connect(name, stream).await?,
                ))
                .await?
            }
        };
        Ok(Connection {
            sender,
            authority: self.authority.clone(),
        })
    }

    /// One GET on a connection of its own.
    pub async fn get(&self, path: &str) -> anyhow::Result<Bytes> {
        self.connect().await?.send(Method::GET, path, "").await
    }
}

/// An answer other than success.
#[derive(Debug)]
pub struct Refusal {
    what: String,
    pub status: StatusCode,
    answer: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { what, status, answer } = self;
        write!(out, "{what}: {status}: {answer}")
    }
}

impl std::error::Error for Refusal {}

pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Connection {
    /// The whole body of a successful answer.
    pub async fn send(&mut self, method: Method, path: &str, body: &str) -> anyhow::Result<Bytes> {
        let (status, answer) = self
            .request(method.clone(), path, "application/json", body)
            .await?;
        whole(&format!("{method} {path}"), status, answer).await
    }

    /// A merge patch; the whole body of a successful answer.
    pub async fn patch(&mut self, path: &str, body: &str) -> anyhow::Result<Bytes> {
        let (status, answer) = self
            .request(Method::PATCH, path, "application/merge-patch+json", body)
            .await?;
        whole(&format!("PATCH {path}"), status, answer).await
    }

    /// The body as it comes: for a watch.
    pub async fn stream(&mut self, path: &str) -> anyhow::Result<Incoming> {
        let (status, body) = self.request(Method::GET, path, "application/json", "").await?;
        if !status.is_success() {
            whole(&format!("GET {path}"), status, body).await?;
            bail!("GET {path}: {status}");
        }
        Ok(body)
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        content_type: &str,
        body: &str,
    ) -> anyhow::Result<(StatusCode, Incoming)> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, content_type)
            .header(header::ACCEPT, "application/json")
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        Ok((answer.status(), answer.into_body()))
    }
}

async fn whole(what: &str, status: StatusCode, answer: Incoming) -> anyhow::Result<Bytes> {
    let answer = answer.collect().await?.to_bytes();
    if !status.is_success() {
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let what = what.to_owned();
        return Err(Refusal { what, status, answer }.into());
    }
    Ok(answer)
}

async fn spawn<S>(io: TokioIo<S>) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    TokioIo<S>: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(io).await?;
    // Ends with its sender; its error reaches whoever waits for an answer.
    tokio::spawn(connection);
    Ok(sender)
}

fn client_config(files: &ClientCertificate) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&files.ca)? {
        roots.add(certificate?)?;
    }
    let chain = CertificateDer::pem_file_iter(&files.certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(&files.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?)
}
