//! Carrying connections: accept, find a backend that takes it, copy both ways until one side ends.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::backend::{Backend, preference};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub async fn accept_loop(
    listener: TcpListener,
    backends: Arc<[Backend]>,
    max_connections: usize,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (client, slot) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (backends, stop) = (backends.clone(), stop.clone());
        connections.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = carry(client, &backends) => {}
            }
            drop(slot);
        });
    }
    connections.close();
    connections.wait().await;
}

/// A slot is taken first: clients beyond the limit wait in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (client, _) = listener.accept().await?;
    client.set_nodelay(true)?;
    Ok((client, slot))
}

/// Nothing of the client's was read before a backend has taken the connection, so the next can be tried.
async fn carry(mut client: TcpStream, backends: &[Backend]) {
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
