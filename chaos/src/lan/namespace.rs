//! A network namespace with one device in it: [`Place`].

use std::{fs::File, net::Ipv4Addr, process::Command, sync::Arc};

use anyhow::{Context, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::tun;

const DEVICE: &str = "lan0";

pub(super) struct Place {
    pub device: File,
    pub namespace: Arc<File>,
}

impl Place {
    /// Takes the calling thread into a new namespace.
    pub(super) fn enter(address: Ipv4Addr) -> anyhow::Result<Place> {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace needs root")?;
        let device = tun::open(DEVICE)?;
        ip(&["link", "set", "dev", "lo", "up"])?;
        ip(&["address", "add", &format!("{address}/24"), "dev", DEVICE])?;
        ip(&["link", "set", "dev", DEVICE, "mtu", "9000", "up"])?;
        let namespace = Arc::new(File::open("/proc/thread-self/ns/net")?);
        Ok(Place { device, namespace })
    }

    /// A namespace that nobody is in.
    pub(super) fn make(address: Ipv4Addr) -> anyhow::Result<Place> {
        let made = std::thread::spawn(move || Place::enter(address)).join();
        made.unwrap_or_else(|_| bail!("the thread that makes a namespace panicked"))
    }
}

/// In the namespace of the calling thread.
fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .context("running ip (is iproute2 installed?)")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

/// What the calling thread, and every thread that it starts later, mounts from now on is seen by nobody else, and gone
/// when the process is. Needs root.
pub fn hide_mounts() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace needs root")?;
    let nothing: Option<&str> = None;
    mount(
        nothing,
        "/",
        nothing,
        MsFlags::MS_REC | MsFlags::MS_PRIVATE,
        nothing,
    )
    .context("making mounts private")?;
    Ok(())
}
