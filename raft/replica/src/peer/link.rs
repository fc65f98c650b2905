//! Links to the other members: connections that are kept open, calls stamped and replies checked.
//!
//! A [`Link`] has three connections, so that heartbeats and votes never queue behind log entries, nor log entries
//! behind a snapshot.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use barque_proto::peer as pb;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pb::raft_client::RaftClient;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Uri},
};

use super::{
    Gate, MAX_MESSAGE_BYTES,
    certificate::{Certificate, Holders},
    lanes::{self, Kept},
    socket::Socket,
};
use crate::{Host, types::Node};

const PING_EVERY: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
const WINDOW: u32 = 8 << 20;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Entries,
    Control,
    Snapshot,
}

/// Where a URL points.
#[derive(Debug, Clone)]
pub struct Address {
    host: String,
    port: u16,
    pub tls: bool,
}

impl Address {
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|e| format!("peer URL {url:?}: {e}"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("peer URL {url:?}: the scheme must be http or https")),
        };
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_string();
        let port = uri
            .port_u16()
            .ok_or_else(|| format!("peer URL {url:?}: the port is missing"))?;
        match host.is_empty() {
            true => Err(format!("peer URL {url:?}: the host is missing")),
            false => Ok(Self { host, port, tls }),
        }
    }

    async fn connect(&self, host: &dyn Host, tls: Option<&TlsConnector>) -> io::Result<Socket> {
        let stream = host.connect(&self.host, self.port).await?;
        match (self.tls, tls) {
            (false, _) => Ok(Socket::Plain(stream)),
            (true, None) => Err(io::Error::other(
                "a peer has an https URL, but this member has no peer TLS",
            )),
            (true, Some(connector)) => {
                let name =
                    rustls::pki_types::ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
                Ok(Socket::Tls(Box::new(
                    connector.connect(name, stream).await?.into(),
                )))
            }
        }
    }
}

/// How a member is connected to.
#[derive(Clone)]
pub struct Dialing {
    pub host: Arc<dyn Host>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// For each of its addresses.
    pub timeout: Duration,
}

impl Dialing {
    /// The first of the addresses that answers. One that swallows everything costs the others their turn by no more
    /// than the timeout.
    async fn dial(&self, addresses: &[Address]) -> io::Result<Socket> {
        let connector = self.tls.clone().map(TlsConnector::from);
        let mut last = io::Error::other("the member has no peer URL");
        for address in addresses {
            let connecting = address.connect(self.host.as_ref(), connector.as_ref());
            match tokio::time::timeout(self.timeout, connecting).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}

/// A channel that connects when it is first used, and again after a failure. `check` looks at who answers.
pub fn channel(
    dialing: Dialing,
    addresses: Vec<Address>,
    check: impl Fn(&Socket) -> io::Result<()> + Clone + Send + 'static,
) -> Channel {
    let connect = tower::service_fn(move |_: Uri| {
        let (dialing, addresses, check) = (dialing.clone(), addresses.clone(), check.clone());
        async move {
            let socket = dialing.dial(&addresses).await?;
            check(&socket)?;
            Ok::<_, io::Error>(TokioIo::new(socket))
        }
    });
    Endpoint::from_static("http://peer")
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connect)
}

pub fn client_config(config: &Arc<rustls::ClientConfig>) -> Arc<rustls::ClientConfig> {
    let mut config = (**config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

pub struct Link {
    pub to: u64,
    gate: Gate,
    entries: Channel,
    control: Channel,
    snapshot: Channel,
    /// The open stream of proposals to this member, when it leads.
    pub forward: Mutex<Option<mpsc::Sender<pb::ForwardRequest>>>,
    kept: OnceLock<[Kept; 2]>,
}

impl Link {
    /// From now on its lanes are open before they are needed; until the link is dropped.
    fn keep_open(self: &Arc<Self>) {
        self.kept.get_or_init(|| lanes::keep_open(self));
    }

    pub fn client(&self, lane: Lane) -> RaftClient<Channel> {
        let channel = match lane {
            Lane::Entries => &self.entries,
            Lane::Control => &self.control,
            Lane::Snapshot => &self.snapshot,
        };
        RaftClient::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.gate.stamp(request.metadata_mut(), self.to);
        request
    }

    /// The reply, once it is known to be from the right member.
    pub fn checked<T>(&self, reply: Result<Response<T>, Status>) -> Result<T, Status> {
        let reply = reply.inspect_err(|status| self.gate.refused_by(self.to, status))?;
        self.gate.admit_reply(self.to, reply.metadata())?;
        Ok(reply.into_inner())
    }
}

/// A link, and the URLs that it was opened for.
type Opened = (Vec<String>, Arc<Link>);

/// One link per member, made when first asked for and again when its URLs change.
pub struct Links {
    gate: Gate,
    holders: Holders,
    dialing: Dialing,
    by_member: Mutex<HashMap<u64, Opened>>,
    /// The members as the log has them.
    members: Mutex<HashMap<u64, Node>>,
}

impl Links {
    pub fn new(gate: Gate, holders: Holders, dialing: Dialing) -> Self {
        Self {
            gate,
            holders,
            dialing,
            by_member: Mutex::default(),
            members: Mutex::default(),
        }
    }

    pub fn to(&self, member_id: u64, node: &Node) -> Arc<Link> {
        let mut links = self.by_member.lock();
        match links.get(&member_id) {
            Some((urls, link)) if *urls == node.peer_urls => link.clone(),
            _ => {
                let link = Arc::new(self.open(member_id, &node.peer_urls));
                links.insert(member_id, (node.peer_urls.clone(), link.clone()));
                link
            }
        }
    }

    /// The membership changed: links to members that are gone are dropped, those to all others opened.
    pub fn set_members(&self, members: HashMap<u64, Node>) {
        self.by_member.lock().retain(|id, _| members.contains_key(id));
        let me = self.gate.me.member_id;
        for (id, node) in members.iter().filter(|(id, _)| **id != me) {
            self.to(*id, node).keep_open();
        }
        *self.members.lock() = members;
    }

    /// The link to a member of the cluster.
    pub fn to_member(&self, member_id: u64) -> Option<Arc<Link>> {
        let node = self.members.lock().get(&member_id).cloned()?;
        let link = self.to(member_id, &node);
        if member_id != self.gate.me.member_id {
            link.keep_open();
        }
        Some(link)
    }

    fn open(&self, to: u64, urls: &[String]) -> Link {
        let addresses: Vec<Address> = urls
            .iter()
            .filter_map(|url| {
                Address::parse(url)
                    .inspect_err(|error| tracing::error!(error))
                    .ok()
            })
            .collect();
        let (gate, holders) = (self.gate.clone(), self.holders.clone());
        // The TLS library has seen to it that the certificate is one of that host.
        let check = move |socket: &Socket| match socket.certificate().as_ref().map(Certificate::read) {
            None => Ok(()),
            Some(certificate) => holders.check_certificate(&certificate, to).map_err(|reason| {
                gate.refuse(reason.clone());
                io::Error::new(io::ErrorKind::PermissionDenied, reason)
            }),
        };
        let open = || channel(self.dialing.clone(), addresses.clone(), check.clone());
        Link {
            to,
            gate: self.gate.clone(),
            entries: open(),
            control: open(),
            snapshot: open(),
            forward: Mutex::new(None),
            kept: OnceLock::new(),
        }
    }
}
