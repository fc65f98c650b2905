//! A network of our own between members: [`Lan`].
//!
//! Each member gets a network namespace with one TUN device, and this process gets one too. Every packet between them
//! passes through a switch in this process, which can drop, lose or delay what goes from one to another and counts
//! what it did. Namespaces and devices are held by nothing but open files: they are gone when the process is, however
//! it ends, and the network of the machine is never touched.

mod link;
mod namespace;
mod switch;
mod tun;

use std::{fs::File, net::Ipv4Addr, sync::Arc, thread::JoinHandle, time::Duration};

use anyhow::Context;
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub use link::{Link, Passed};
pub use namespace::{become_root, hide_mounts, impossible};

use crate::cluster::Host;
use link::Links;
use namespace::Place;

/// Of the addresses that nobody else may use: the namespaces know no other network.
const NET: [u8; 3] = [10, 77, 0];

/// The address of the host with this number; that of this process has the number after the last member's.
fn address(number: usize) -> Ipv4Addr {
    let last = u8::try_from(number + 1).expect("a few hosts");
    Ipv4Addr::new(NET[0], NET[1], NET[2], last)
}

/// Members are numbered from 0.
pub struct Lan {
    hosts: Vec<Host>,
    links: Arc<Mutex<Links>>,
    stop: Option<oneshot::Sender<()>>,
    switch: Option<JoinHandle<()>>,
}

impl Lan {
    /// Takes the calling thread, and every thread that it starts later, into the network: call it before there are
    /// others. Needs root, or [`become_root`].
    pub fn create(members: usize, seed: u64) -> anyhow::Result<Lan> {
        let ours = Place::enter(address(members)).context("a network for this process")?;
        let mut devices = Vec::new();
        let mut hosts = Vec::new();
        for number in 0..members {
            let place = Place::make(address(number)).context("a network for a member")?;
            devices.push(place.device);
            hosts.push(Host {
                address: address(number),
                namespace: place.namespace,
            });
        }
        devices.push(ours.device);
        let links = Arc::new(Mutex::new(Links::new(devices.len(), seed)));
        let (stop, stopped) = oneshot::channel();
        let switch = start(devices, links.clone(), stopped)?;
        Ok(Lan {
            hosts,
            links,
            stop: Some(stop),
            switch: Some(switch),
        })
    }

    pub fn hosts(&self) -> Vec<Host> {
        self.hosts.clone()
    }

    /// Changes what goes from one member to another, in this direction.
    pub fn set(&self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        change(self.links.lock().link(from, to));
    }

    /// Every link as it was at the beginning.
    pub fn heal(&self) {
        self.links.lock().heal();
    }

    /// What became of all packets so far.
    pub fn passed(&self) -> Passed {
        self.links.lock().passed
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(switch) = self.switch.take() {
            let _ = switch.join();
        }
    }
}

fn start(
    devices: Vec<File>,
    links: Arc<Mutex<Links>>,
    stopped: oneshot::Receiver<()>,
) -> anyhow::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // A thread of its own: whatever this process computes, the members' packets go on.
    let run = move || {
        if let Err(error) = runtime.block_on(switch::run(devices, links, stopped)) {
            tracing::error!(%error, "the switch between the members failed");
        }
        runtime.shutdown_timeout(Duration::ZERO);
    };
    Ok(std::thread::Builder::new().name("switch".into()).spawn(run)?)
}
