//! Connections to the servers under load: [`Peer`].

use std::time::Duration;

use anyhow::Context;
use barque_chaos::cluster::ClientCertificate;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// The endpoints of one cluster and how to reach them.
#[derive(Debug, Clone)]
pub struct Peer {
    endpoints: Vec<String>,
    certificate: Option<ClientCertificate>,
}

impl Peer {
    pub fn new(endpoints: Vec<String>, certificate: Option<ClientCertificate>) -> Peer {
        Peer {
            endpoints,
            certificate,
        }
    }

    /// `count` connections of their own, spread over the endpoints in turn.
    pub async fn connect(&self, count: usize) -> anyhow::Result<Vec<Channel>> {
        let tls = self.tls()?;
        let mut channels = Vec::with_capacity(count);
        for number in 0..count {
            let url = &self.endpoints[number % self.endpoints.len()];
            let mut endpoint = Endpoint::from_shared(url.clone())?
                .connect_timeout(Duration::from_secs(20))
                .timeout(Duration::from_secs(60))
                .tcp_nodelay(true);
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone())?;
            }
            channels.push(
                endpoint
                    .connect()
                    .await
                    .with_context(|| format!("connecting to {url}"))?,
            );
        }
        Ok(channels)
    }

    fn tls(&self) -> anyhow::Result<Option<ClientTlsConfig>> {
        let Some(files) = &self.certificate else {
            return Ok(None);
        };
        let ca = Certificate::from_pem(std::fs::read(&files.ca)?);
        let identity = Identity::from_pem(std::fs::read(&files.certificate)?, std::fs::read(&files.key)?);
        Ok(Some(ClientTlsConfig::new().ca_certificate(ca).identity(identity)))
    }
}
