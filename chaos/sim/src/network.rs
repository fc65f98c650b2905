//! The simulated network: byte streams between hosts that are slow, cut, reset or blocked one way, as it is told.
//!
//! A connection is two pipes. What is written is delivered in order after the link's latency; a lost packet is a
//! longer wait, as TCP makes of it. A blocked link delivers nothing until it is opened again. A reset loses what is
//! on its way, at both ends. A connection that is cut in half is dead for one end, while the other still reads what
//! was on its way: after what the first end sends on a new connection, so that messages come twice and out of order.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use barque_replica::{Connection, Listener};
use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
    time::{Sleep, sleep},
};

use crate::interpose::now_us;

/// A host by number: members from 0 on, clients from [`FIRST_CLIENT`] on.
pub type HostId = u32;
pub const FIRST_CLIENT: HostId = 1000;

/// Bytes under way in one direction of a connection.
const WINDOW_BYTES: usize = 256 << 10;
const RETRANSMIT_US: u64 = 200_000;

/// How one direction between two hosts is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    pub least_us: u64,
    pub most_us: u64,
    /// Of a thousand packets.
    pub lost: u32,
    pub blocked: bool,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            least_us: 200,
            most_us: 2_000,
            lost: 0,
            blocked: false,
        }
    }
}

#[derive(Clone)]
pub struct Network {
    state: Arc<Mutex<State>>,
}

struct State {
    rng: StdRng,
    links: BTreeMap<(HostId, HostId), Link>,
    listeners: BTreeMap<(HostId, u16), mpsc::UnboundedSender<End>>,
    pipes: Vec<Weak<Pipe>>,
    passed: Passed,
}

/// What became of all writes so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Passed {
    /// Longer under way than they are on a link that nothing is wrong with.
    pub delayed: u64,
    /// Those that came later for a lost packet.
    pub lost: u64,
    /// Reads, and attempts to connect, that a blocked link kept waiting.
    pub held: u64,
}

impl Network {
    pub fn new(seed: u64) -> Network {
        Network {
            state: Arc::new(Mutex::new(State {
                rng: StdRng::seed_from_u64(seed),
                links: BTreeMap::new(),
                listeners: BTreeMap::new(),
                pipes: Vec::new(),
                passed: Passed::default(),
            })),
        }
    }

    /// Changes the direction `from` → `to`, of open connections too.
    pub fn set(&self, from: HostId, to: HostId, change: impl FnOnce(&mut Link)) {
        let mut state = self.state.lock();
        change(state.links.entry((from, to)).or_default());
        state.wake_all();
    }

    /// How the direction `from` → `to` is.
    pub fn link(&self, from: HostId, to: HostId) -> Link {
        self.state.lock().link(from, to)
    }

    /// Every link is again as it was at the beginning.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.links.clear();
        state.wake_all();
    }

    /// Breaks the connections that `which` says, by their two hosts.
    pub fn reset(&self, which: impl Fn(HostId, HostId) -> bool) -> usize {
        let state = self.state.lock();
        let mut broken = 0;
        for pipe in state.pipes.iter().filter_map(Weak::upgrade) {
            if which(pipe.from, pipe.to) {
                broken += usize::from(pipe.reset());
            }
        }
        broken
    }

    /// Cuts connections between `from` and others that `which` says in half: `from` has lost them, and what it sent
    /// arrives later by `late`. How many chunks that was.
    pub fn cut_in_half(&self, from: HostId, which: impl Fn(HostId) -> bool, late: Duration) -> usize {
        let state = self.state.lock();
        let mut under_way = 0;
        for pipe in state.pipes.iter().filter_map(Weak::upgrade) {
            if pipe.from == from && which(pipe.to) {
                under_way += pipe.linger(late);
            } else if pipe.to == from && which(pipe.from) {
                pipe.lose_reader();
            }
        }
        under_way
    }

    /// The host is gone and listens no more. The kernel of a process that ended still sends what it wrote; after a
    /// power cut nobody does.
    pub fn crash(&self, host: HostId, power: bool) {
        if !power {
            self.cut_in_half(host, |_| true, Duration::ZERO);
        } else {
            self.reset(|from, to| from == host || to == host);
        }
        self.state.lock().listeners.retain(|(at, _), _| *at != host);
    }

    pub fn passed(&self) -> Passed {
        self.state.lock().passed
    }

    pub fn listen(&self, host: HostId, port: u16) -> SimListener {
        let (tx, rx) = mpsc::unbounded_channel();
        self.state.lock().listeners.insert((host, port), tx);
        SimListener { rx }
    }

    pub async fn connect(&self, from: HostId, to: HostId, port: u16) -> io::Result<End> {
        while self.blocked(from, to) || self.blocked(to, from) {
            self.state.lock().passed.held += 1;
            sleep(Duration::from_millis(50)).await;
        }
        let there_and_back = {
            let mut state = self.state.lock();
            state.latency_us(from, to) + state.latency_us(to, from)
        };
        sleep(Duration::from_micros(there_and_back)).await;
        let mut state = self.state.lock();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = state.listeners.get(&(to, port)).cloned().ok_or_else(refused)?;
        let (there, back) = (state.pipe(from, to), state.pipe(to, from));
        drop(state);
        let far = End::new(self, there.clone(), back.clone());
        listener.send(far).map_err(|_| refused())?;
        Ok(End::new(self, back, there))
    }

    fn blocked(&self, from: HostId, to: HostId) -> bool {
        self.link(from, to).blocked
    }
}

impl State {
    fn link(&self, from: HostId, to: HostId) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or_default()
    }

    fn latency_us(&mut self, from: HostId, to: HostId) -> u64 {
        let link = self.link(from, to);
        let mut latency = self
            .rng
            .random_range(link.least_us..=link.most_us.max(link.least_us));
        self.passed.delayed += u64::from(latency > Link::default().most_us);
        if link.lost > 0 && self.rng.random_range(0..1000) < link.lost {
            self.passed.lost += 1;
            latency += RETRANSMIT_US;
        }
        latency
    }

    fn pipe(&mut self, from: HostId, to: HostId) -> Arc<Pipe> {
        let pipe = Arc::new(Pipe {
            from,
            to,
            flow: Mutex::default(),
        });
        self.pipes.retain(|pipe| pipe.strong_count() > 0);
        self.pipes.push(Arc::downgrade(&pipe));
        pipe
    }

    fn wake_all(&self) {
        for pipe in self.pipes.iter().filter_map(Weak::upgrade) {
            pipe.flow.lock().wake();
        }
    }
}

/// One direction of a connection.
struct Pipe {
    from: HostId,
    to: HostId,
    flow: Mutex<Flow>,
}

#[derive(Default)]
struct Flow {
    /// With when it arrives; empty bytes are the end.
    under_way: VecDeque<(u64, Bytes)>,
    bytes: usize,
    last_arrival: u64,
    ended: bool,
    reset: bool,
    /// The writer has lost the connection; the reader has not noticed yet.
    lingers: bool,
    /// The reader has lost the connection; the writer has not noticed yet, and what it writes is lost.
    lost: bool,
    /// Nobody reads any more.
    unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Flow {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    fn push(&mut self, arrives: u64, bytes: Bytes) {
        self.last_arrival = self.last_arrival.max(arrives);
        self.bytes += bytes.len();
        self.under_way.push_back((self.last_arrival, bytes));
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

impl Pipe {
    fn reset(&self) -> bool {
        let mut flow = self.flow.lock();
        if flow.reset {
            return false;
        }
        flow.reset = true;
        flow.under_way.clear();
        flow.wake();
        true
    }

    /// How many chunks still arrive.
    fn linger(&self, late: Duration) -> usize {
        let mut flow = self.flow.lock();
        flow.lingers = true;
        for (arrives, _) in &mut flow.under_way {
            *arrives += late.as_micros() as u64;
        }
        flow.wake();
        flow.under_way.len()
    }

    fn lose_reader(&self) {
        let mut flow = self.flow.lock();
        flow.lost = true;
        flow.under_way.clear();
        flow.bytes = 0;
        flow.wake();
    }
}

/// One end of a connection.
pub struct End {
    network: Network,
    read: Arc<Pipe>,
    write: Arc<Pipe>,
    arrival: Option<Pin<Box<Sleep>>>,
}

impl End {
    fn new(network: &Network, read: Arc<Pipe>, write: Arc<Pipe>) -> End {
        End {
            network: network.clone(),
            read,
            write,
            arrival: None,
        }
    }

    fn send(&self, bytes: Bytes) {
        let latency = self
            .network
            .state
            .lock()
            .latency_us(self.write.from, self.write.to);
        self.write.flow.lock().push(now_us() + latency, bytes);
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let blocked = self.network.blocked(self.read.from, self.read.to);
        loop {
            let pipe = self.read.clone();
            let mut flow = pipe.flow.lock();
            if flow.reset || flow.lost || (flow.lingers && flow.under_way.is_empty()) {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            flow.reader = Some(cx.waker().clone());
            let now = now_us();
            let arrives = match flow.under_way.front_mut() {
                None => return Poll::Pending,
                Some(_) if blocked => {
                    self.network.state.lock().passed.held += 1;
                    return Poll::Pending;
                }
                Some((arrives, bytes)) if *arrives <= now => {
                    if bytes.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    let length = bytes.len().min(buf.remaining());
                    buf.put_slice(&bytes[..length]);
                    bytes.advance(length);
                    if bytes.is_empty() {
                        flow.under_way.pop_front();
                    }
                    flow.bytes -= length;
                    if let Some(writer) = flow.writer.take() {
                        writer.wake();
                    }
                    return Poll::Ready(Ok(()));
                }
                Some((arrives, _)) => *arrives,
            };
            drop(flow);
            let arrival = self
                .arrival
                .insert(Box::pin(sleep(Duration::from_micros(arrives - now))));
            if arrival.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        {
            let mut flow = self.write.flow.lock();
            // Before anything else: nobody has told this end that there is no reader any more.
            if flow.lost && !flow.reset {
                return Poll::Ready(Ok(buf.len()));
            }
            if flow.reset || flow.unread || flow.ended || flow.lingers {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if flow.bytes >= WINDOW_BYTES {
                flow.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        if !buf.is_empty() {
            self.send(Bytes::copy_from_slice(buf));
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.end();
        Poll::Ready(Ok(()))
    }
}

impl End {
    fn end(&self) {
        let nobody_sees = {
            let mut flow = self.write.flow.lock();
            std::mem::replace(&mut flow.ended, true) || flow.lingers || flow.lost
        };
        if !nobody_sees {
            self.send(Bytes::new());
        }
    }
}

impl tonic::transport::server::Connected for End {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl Drop for End {
    fn drop(&mut self) {
        self.end();
        let mut flow = self.read.flow.lock();
        flow.unread = true;
        flow.wake();
    }
}

pub struct SimListener {
    rx: mpsc::UnboundedReceiver<End>,
}

impl SimListener {
    /// `None`: the host crashed.
    pub async fn next(&mut self) -> Option<End> {
        self.rx.recv().await
    }
}

/// Each host has an address of its own.
fn address(host: HostId) -> SocketAddr {
    (Ipv4Addr::from_bits(host), 0).into()
}

impl Listener for SimListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(Box<dyn Connection>, SocketAddr)>> {
        Box::pin(async move {
            match self.rx.recv().await {
                Some(end) => {
                    let from = address(end.read.from);
                    Ok((Box::new(end) as Box<dyn Connection>, from))
                }
                // A host that crashed accepts nothing.
                None => std::future::pending().await,
            }
        })
    }
}
