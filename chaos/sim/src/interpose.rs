//! The functions of the C library by which anything from outside reaches this process, the clock, random bytes and
//! waiting for events, and those by which it makes files durable.
//!
//! They are defined here, and the linker prefers them to the C library's, so that everything above (the standard
//! library's hash seeds and clocks, tokio's timers, openraft's election timeouts) draws from one seed and lives in
//! simulated time without knowing. Until [`begin`] is called they pass everything on to the kernel. Waiting does not
//! wait: whoever would is told to [`crate::process`], where the turn goes to another. Syncing writes nothing: it is
//! noted by [`crate::files`], which has power cuts.
//!
//! Each process of the simulation has its clock: it runs a little fast or slow, and its wall clock is wrong.

#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use crate::{
    files,
    process::{self, Slot},
};

static SIMULATED: AtomicBool = AtomicBool::new(false);
/// By the clock of the world, which is right.
static NOW_NS: AtomicU64 = AtomicU64::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// Whose turn it is.
static CURRENT: AtomicUsize = AtomicUsize::new(process::WORLD);
static CLOCKS: [Clock; SLOTS] = [const { Clock::new() }; SLOTS];

/// The world and its members.
const SLOTS: usize = 16;
/// Each look for events takes this long, so that tasks that are always ready do not stop time. A look at the clock
/// takes none: what only logs more must not change the run.
const LOOK_NS: u64 = 10_000;
const START_NS: u64 = 1_000_000_000_000;
/// 2026-01-01.
const WALL_START_NS: i64 = 1_767_225_600_000_000_000;
const NO_FILE: c_int = -1;

struct Clock {
    /// How many of a million nanoseconds it gains.
    gains: AtomicI64,
    /// What its wall clock differs from the right one.
    wall_ns: AtomicI64,
    /// How often it was asked for the time of day.
    wall_reads: AtomicU64,
    /// Where its process waits for events.
    epoll: AtomicI32,
}

impl Clock {
    const fn new() -> Clock {
        Clock {
            gains: AtomicI64::new(0),
            wall_ns: AtomicI64::new(0),
            wall_reads: AtomicU64::new(0),
            epoll: AtomicI32::new(NO_FILE),
        }
    }

    fn now_ns(&self) -> i64 {
        let passed = (NOW_NS.load(SeqCst) - START_NS) as i64;
        START_NS as i64 + passed + passed * self.gains.load(SeqCst) / 1_000_000
    }
}

/// From here on time and chance are the seed's. For good: a process runs one simulation.
pub fn begin(seed: u64) {
    RANDOM.store(seed ^ 0x9e37_79b9_7f4a_7c15, SeqCst);
    NOW_NS.store(START_NS, SeqCst);
    SIMULATED.store(true, SeqCst);
}

pub fn now_ns() -> u64 {
    NOW_NS.load(SeqCst)
}

/// Simulated microseconds since [`begin`].
pub fn now_us() -> u64 {
    (now_ns() - START_NS) / 1000
}

/// Nothing happens until then.
pub fn pass_until(then_ns: u64) {
    NOW_NS.fetch_max(then_ns, SeqCst);
}

/// Clocks are this process's until the next call.
pub fn enter(slot: Slot) {
    CURRENT.store(slot, SeqCst);
}

/// How much its clock gains in a million.
pub fn set_clock_rate(slot: Slot, gains: i64) {
    CLOCKS[slot].gains.store(gains, SeqCst);
}

/// Sets its wall clock on or back.
pub fn jump_wall_clock(slot: Slot, by_ns: i64) {
    CLOCKS[slot].wall_ns.fetch_add(by_ns, SeqCst);
}

/// How often its wall clock was looked at so far.
pub fn wall_reads(slot: Slot) -> u64 {
    CLOCKS[slot].wall_reads.load(SeqCst)
}

/// How long it takes until `time` has passed on its clock.
pub fn world_ns(slot: Slot, time: Duration) -> u64 {
    let gains = CLOCKS[slot].gains.load(SeqCst);
    let time = time.as_nanos() as i128;
    // Rounded up: too early would be a turn for nothing.
    (time * 1_000_000 / i128::from(1_000_000 + gains) + 1000) as u64
}

/// A new process waits elsewhere.
pub fn forget_events(slot: Slot) {
    CLOCKS[slot].epoll.store(NO_FILE, SeqCst);
}

/// Whether another process has woken this one. Asking is the only notice taken: it must have its turn then.
pub fn has_events(slot: Slot) -> bool {
    let epoll = CLOCKS[slot].epoll.load(SeqCst);
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: there is room for one event.
    epoll != NO_FILE && unsafe { kernel_wait(epoll, &mut event, 1, 0) } > 0
}

/// # Safety
/// As `epoll_wait`: `events` has room for `max` events.
unsafe fn kernel_wait(epoll: c_int, events: *mut libc::epoll_event, max: c_int, timeout_ms: c_int) -> c_int {
    let no_mask = std::ptr::null::<libc::sigset_t>();
    // SAFETY: the caller's promise, passed on; no signal mask is given.
    let ready = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait,
            epoll,
            events,
            max,
            timeout_ms,
            no_mask,
            8usize,
        )
    };
    ready as c_int
}

/// SplitMix64: a step of the state, then a mix of its bits.
fn next_random() -> u64 {
    let mut z = RANDOM
        .fetch_add(0x9e37_79b9_7f4a_7c15, SeqCst)
        .wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// # Safety
/// As the C library's function of this name: `at` points to a `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, at: *mut libc::timespec) -> c_int {
    if !SIMULATED.load(SeqCst) {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock as c_long, at) as c_int };
    }
    let mine = &CLOCKS[CURRENT.load(SeqCst)];
    let now = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => {
            mine.wall_reads.fetch_add(1, SeqCst);
            mine.now_ns() - START_NS as i64 + WALL_START_NS + mine.wall_ns.load(SeqCst)
        }
        _ => mine.now_ns(),
    };
    let time = libc::timespec {
        tv_sec: now / 1_000_000_000,
        tv_nsec: now % 1_000_000_000,
    };
    // SAFETY: the caller promises that `at` can be written.
    unsafe { at.write(time) };
    0
}

/// # Safety
/// As the C library's function of this name: `buffer` has room for `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, flags: c_uint) -> isize {
    if !SIMULATED.load(SeqCst) {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, length, flags as c_long) as isize };
    }
    // SAFETY: the caller promises room for `length` bytes.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for part in buffer.chunks_mut(8) {
        part.copy_from_slice(&next_random().to_le_bytes()[..part.len()]);
    }
    length as isize
}

/// # Safety
/// As the C library's function of this name: `events` has room for `max` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn epoll_wait(
    epoll: c_int,
    events: *mut libc::epoll_event,
    max: c_int,
    timeout_ms: c_int,
) -> c_int {
    if !SIMULATED.load(SeqCst) {
        // SAFETY: the caller's promise, passed on.
        return unsafe { kernel_wait(epoll, events, max, timeout_ms) };
    }
    CLOCKS[CURRENT.load(SeqCst)].epoll.store(epoll, SeqCst);
    if timeout_ms == 0 {
        NOW_NS.fetch_add(LOOK_NS, SeqCst);
    }
    process::looks(u64::try_from(timeout_ms).ok().map(Duration::from_millis));
    // SAFETY: the caller's promise, passed on.
    unsafe { kernel_wait(epoll, events, max, 0) }
}

/// Notes what is durable now, or has the kernel see to it.
fn sync(file: c_int, call: c_long) -> c_int {
    if !SIMULATED.load(SeqCst) {
        // SAFETY: no memory is passed.
        return unsafe { libc::syscall(call, file) as c_int };
    }
    match files::note_sync(CURRENT.load(SeqCst), file) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "a simulated sync failed");
            // SAFETY: the place of this thread's `errno` is always valid.
            unsafe { *libc::__errno_location() = libc::EIO };
            -1
        }
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    sync(file, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    sync(file, libc::SYS_fdatasync)
}
