//! Carrying connections: accept, find a backend that takes it, copy both ways until one side ends.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use barque_entrance::{Bounds, Entrance, Visitor};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::backend::{Backend, preference};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Clients speak first. One that does not gets no connection to a master.
const PATIENCE: Duration = Duration::from_secs(10);
const NEWCOMERS: usize = 4096;

/// Its clients are usually on the same machine, so that one address is as good as another.
pub fn entrance(max_connections: usize) -> Entrance {
    let newcomers = NEWCOMERS.min(max_connections);
    let bounds = Bounds {
        newcomers,
        newcomers_per_address: newcomers,
        connections: max_connections,
        connections_per_address: max_connections,
        patience: PATIENCE,
    };
    Entrance::new("proxy", bounds)
}

pub async fn accept_loop(
    listener: TcpListener,
    backends: Arc<[Backend]>,
    entrance: Entrance,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Some(client) = entrance.admit(accepted).await else {
            continue;
        };
        let (backends, stop) = (backends.clone(), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = carry(client, &backends) => {}
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// Nothing of the client's was read before a backend has taken the connection, so the next can be tried.
async fn carry(mut client: Visitor<TcpStream>, backends: &[Backend]) {
    let spoke = client.speaks().await;
    if spoke.and_then(|()| client.get_ref().set_nodelay(true)).is_err() {
        return;
    }
    client.ticket().settle();
    for at in preference(backends) {
        let backend = &backends[at];
        let alive = backend.alive();
        let Some(mut server) = connect(backend).await else {
            continue;
        };
        backend.connections.fetch_add(1, Ordering::Relaxed);
        backend.connections_total.fetch_add(1, Ordering::Relaxed);
        tokio::select! {
            // A reset in the middle is between the two ends; each of them sees it.
            _ended = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
            () = alive.cancelled() => {}
        }
        backend.connections.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    tracing::warn!("no master takes a connection");
}

async fn connect(backend: &Backend) -> Option<TcpStream> {
    let stream = match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(backend.address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) | Err(_) => {
            backend.connect_failed();
            return None;
        }
    };
    stream.set_nodelay(true).ok()?;
    Some(stream)
}
