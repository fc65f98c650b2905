//! Peers get through while others hold hundreds of connections to every peers' port.

use std::{
    collections::VecDeque,
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::{
    authority::Authority,
    cluster::{Cluster, read, write, write_until_acknowledged},
};

/// Several times what a port that made one wait for the other would take on at once.
const SILENT_PER_PORT: usize = 100;

fn crowd(addresses: &[SocketAddr]) -> Vec<TcpStream> {
    let all = addresses.iter().cycle().take(SILENT_PER_PORT * addresses.len());
    all.map(|address| TcpStream::connect(address).unwrap()).collect()
}

/// New ones all the time, until it is dropped.
struct Trickle(Arc<AtomicBool>);

impl Trickle {
    fn start(addresses: Vec<SocketAddr>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let mut silent = VecDeque::new();
            while !stopped.load(Ordering::Relaxed) {
                for address in &addresses {
                    // A member that was killed listens no more.
                    silent.extend(TcpStream::connect(address));
                }
                while silent.len() > SILENT_PER_PORT {
                    silent.pop_front();
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self(stop)
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_is_elected_while_silent_connections_crowd_every_port() {
    let mut cluster = Cluster::with_scheme(3, "https");
    let authority = Authority::new();
    cluster.tls = (0..3).map(|number| Some(authority.peer_of(number))).collect();
    cluster.start_all().await;
    write(cluster.replica(0), "a", "1").await.unwrap();
    let silent = crowd(cluster.addresses());
    let _trickle = Trickle::start(cluster.addresses().to_vec());
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    let left = cluster.running()[0];
    write_until_acknowledged(cluster.replica(left), "b", "2").await;
    // A member that starts has every connection still to make.
    cluster.start(leader).await;
    cluster.ready(leader).await;
    assert_eq!(read(cluster.replica(leader), "b").await.as_deref(), Some("2"));
    // The time of those that came first is over.
    cluster.late_at(left, SILENT_PER_PORT as u64 / 2).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_are_open_before_anybody_needs_them() {
    let cluster = Cluster::started(3).await;
    // Two lanes from each of the others; a leader's own streams lie on these.
    for number in 0..3 {
        cluster.settled_at(number, 4).await;
    }
}
