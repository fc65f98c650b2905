//! The four functions of the C library by which anything from outside reaches this process: the clock, random
//! bytes, and waiting for events.
//!
//! They are defined here, and the linker prefers them to the C library's, so that everything above (the standard
//! library's hash seeds and clocks, tokio's timers, openraft's election timeouts) draws from one seed and lives in
//! simulated time without knowing. Until [`begin`] is called they pass everything on to the kernel. Waiting does not
//! wait: when no task can run, the clock jumps to the next timer.

#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_long, c_uint, c_void},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
};

static SIMULATED: AtomicBool = AtomicBool::new(false);
static NOW_NS: AtomicU64 = AtomicU64::new(0);
/// What the wall clock differs from the monotonic one.
static WALL_NS: AtomicI64 = AtomicI64::new(0);
static RANDOM: AtomicU64 = AtomicU64::new(0);

/// Each look for events takes this long, so that tasks that are always ready do not stop time. A look at the clock
/// takes none: what only logs more must not change the run.
const LOOK_NS: u64 = 10_000;
const START_NS: u64 = 1_000_000_000_000;
/// 2026-01-01.
const WALL_START_NS: i64 = 1_767_225_600_000_000_000;

/// From here on time and chance are the seed's. For good: a process runs one simulation.
pub fn begin(seed: u64) {
    RANDOM.store(seed ^ 0x9e37_79b9_7f4a_7c15, SeqCst);
    NOW_NS.store(START_NS, SeqCst);
    WALL_NS.store(WALL_START_NS - START_NS as i64, SeqCst);
    SIMULATED.store(true, SeqCst);
}

/// Simulated microseconds since [`begin`].
pub fn now_us() -> u64 {
    (NOW_NS.load(SeqCst) - START_NS) / 1000
}

/// Sets the wall clock on or back.
pub fn jump_wall_clock(by_ns: i64) {
    WALL_NS.fetch_add(by_ns, SeqCst);
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
    let now = NOW_NS.load(SeqCst) as i64;
    let now = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => now + WALL_NS.load(SeqCst),
        _ => now,
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
    let wait = |timeout_ms: c_int| {
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
    };
    if !SIMULATED.load(SeqCst) {
        return wait(timeout_ms);
    }
    let ready = wait(0);
    if ready == 0 && timeout_ms < 0 {
        crate::stuck();
    }
    let passed = match ready {
        0 => (timeout_ms as u64 * 1_000_000).max(LOOK_NS),
        _ => LOOK_NS,
    };
    NOW_NS.fetch_add(passed, SeqCst);
    ready
}
