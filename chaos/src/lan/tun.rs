//! A TUN device: a network interface whose packets are read and written on a file.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
};

use anyhow::{Context, ensure};

/// Where devices are made.
pub const DEVICES: &str = "/dev/net/tun";
const SET_INTERFACE: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: i16 = 0x0001;
/// Packets without a header before them.
const IFF_NO_PI: i16 = 0x1000;

/// `struct ifreq` as far as this call reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes the device in the namespace of the calling thread; it lasts as long as the file is open. The file never blocks.
pub(super) fn open(name: &str) -> anyhow::Result<File> {
    ensure!(name.len() < 16, "{name:?} is too long for a network device");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(DEVICES)
        .context(DEVICES)?;
    let mut request = Request {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    attach(&file, &mut request).with_context(|| format!("making the device {name}"))?;
    Ok(file)
}

#[allow(unsafe_code)]
fn attach(file: &File, request: &mut Request) -> io::Result<()> {
    // SAFETY: the request has the size and layout of an ifreq, and lives through the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), SET_INTERFACE as _, request) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
