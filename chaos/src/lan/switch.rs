//! Carries packets from device to device, as the links say.

use std::{
    fs::File,
    io::{self, Read, Write},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
    task::JoinSet,
    time::sleep,
};

use super::{NET, link::Links};

type Device = Arc<AsyncFd<File>>;

const LARGEST: usize = 65_536;

/// Until it is told to stop, or a device fails.
pub(super) async fn run(
    devices: Vec<File>,
    links: Arc<Mutex<Links>>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    let devices: Arc<[Device]> = devices.into_iter().map(register).collect::<io::Result<_>>()?;
    let mut readers = JoinSet::new();
    for from in 0..devices.len() {
        readers.spawn(carry(from, devices.clone(), links.clone()));
    }
    tokio::select! {
        _ = stopped => Ok(()),
        failed = readers.join_next() => match failed {
            Some(Ok(ended)) => ended,
            _ => Err(io::Error::other("a reader of a device panicked")),
        },
    }
}

#[allow(unsafe_code)]
fn register(device: File) -> io::Result<Device> {
    // SAFETY: a file's descriptor stays open and the same for as long as the file is, which nobody takes out again.
    let registered = unsafe { AsyncFd::register(device) };
    Ok(Arc::new(registered.map_err(io::Error::from)?))
}

async fn carry(from: usize, devices: Arc<[Device]>, links: Arc<Mutex<Links>>) -> io::Result<()> {
    let mut packet = vec![0; LARGEST];
    loop {
        let length = devices[from]
            .async_io(Interest::READABLE, |mut device| device.read(&mut packet))
            .await?;
        let packet = &packet[..length];
        let Some(to) = destination(packet).filter(|to| *to < devices.len()) else {
            continue;
        };
        let passed = links.lock().pass(from, to);
        match passed {
            None => {}
            Some(delay) if delay.is_zero() => deliver(&devices[to], packet),
            Some(delay) => {
                let (device, packet) = (devices[to].clone(), packet.to_vec());
                tokio::spawn(async move {
                    sleep(delay).await;
                    deliver(&device, &packet);
                });
            }
        }
    }
}

/// A packet for which there is no room is lost, as in any network.
fn deliver(device: &Device, packet: &[u8]) {
    let mut device = device.get_ref();
    if let Err(error) = device.write(packet) {
        tracing::debug!(%error, "a packet was not delivered");
    }
}

/// The host that an IPv4 packet of this network is for.
fn destination(packet: &[u8]) -> Option<usize> {
    let is_ipv4 = packet.first()? >> 4 == 4;
    let [a, b, c, last] = *packet.get(16..20)? else {
        return None;
    };
    (is_ipv4 && [a, b, c] == NET)
        .then(|| usize::from(last).checked_sub(1))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_for_a_host_is_carried() {
        let mut packet = [0u8; 20];
        packet[0] = 0x45;
        packet[16..].copy_from_slice(&[10, 77, 0, 3]);
        assert_eq!(destination(&packet), Some(2));
        packet[18] = 1;
        assert_eq!(destination(&packet), None);
        assert_eq!(destination(&[0x60; 40]), None);
        assert_eq!(destination(&[0x45; 10]), None);
    }
}
