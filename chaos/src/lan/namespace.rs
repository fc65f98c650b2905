//! A network namespace with one device in it: [`Place`].

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    process::Command,
    sync::Arc,
};

use anyhow::{Context, bail};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
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

/// Why there can be no network of our own here, if so: one is made and given up again. Root may lack the capability, and
/// an ordinary user has it where the kernel lets it be root in a namespace of its own.
pub fn impossible() -> Option<String> {
    let mut probe = Command::new("unshare");
    if !geteuid().is_root() {
        probe.args(["--user", "--map-root-user"]);
    }
    probe.args(["--net", "ip", "link", "set", "dev", "lo", "up"]);
    let why = match probe.output() {
        Err(error) => format!("running unshare: {error}"),
        Ok(output) if !output.status.success() => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Ok(_) => return no_device(),
    };
    Some(format!(
        "it needs a network namespace of its own, as root or by user namespaces: {why}"
    ))
}

fn no_device() -> Option<String> {
    let device = File::options().read(true).write(true).open(tun::DEVICES);
    device
        .err()
        .map(|error| format!("it needs {}: {error}", tun::DEVICES))
}

/// Makes an ordinary user root, as far as namespaces go that are made from now on. For a process of one thread.
pub fn become_root() -> anyhow::Result<()> {
    let (user, group) = (geteuid(), getegid());
    if user.is_root() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWUSER).context("making a user namespace")?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))?;
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
