//! A wall clock that is wrong, for one process: to be named in `LD_PRELOAD`.
//!
//! The file that `BARQUE_CLOCK` names holds two numbers (64 bits, signed, in the machine's byte order): the nanoseconds by
//! which every wall clock time that the process asks for is off, and how often the process was told a wrong time. The
//! file is mapped, so that writing it is the jump. The monotonic clock stays as it is, as it does when somebody sets a
//! machine's clock.

#![allow(unsafe_code)]

use std::{
    env,
    ffi::c_int,
    fs::File,
    os::fd::AsRawFd,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

type ClockGettime = unsafe extern "C" fn(libc::clockid_t, *mut libc::timespec) -> c_int;

const SECOND_NS: i64 = 1_000_000_000;

/// What everybody else calls.
fn real() -> Option<ClockGettime> {
    static REAL: OnceLock<Option<ClockGettime>> = OnceLock::new();
    *REAL.get_or_init(|| {
        // SAFETY: the name ends with a zero byte; the function of this name has this type.
        unsafe {
            let found = libc::dlsym(libc::RTLD_NEXT, c"clock_gettime".as_ptr());
            (!found.is_null()).then(|| std::mem::transmute::<*mut libc::c_void, ClockGettime>(found))
        }
    })
}

/// What is in the file.
#[repr(C)]
struct Wrong {
    by_ns: AtomicI64,
    told: AtomicI64,
}

/// None if there is no such file.
fn wrong() -> Option<&'static Wrong> {
    static WRONG: OnceLock<Option<&'static Wrong>> = OnceLock::new();
    *WRONG.get_or_init(|| {
        let path = env::var_os("BARQUE_CLOCK")?;
        let file = File::options().read(true).write(true).open(path).ok()?;
        let length = size_of::<Wrong>();
        if file.metadata().ok()?.len() < length as u64 {
            return None;
        }
        // SAFETY: a new mapping of a file that is long enough, page-aligned, and never unmapped.
        unsafe {
            let at = libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            );
            (at != libc::MAP_FAILED).then(|| &*at.cast::<Wrong>())
        }
    })
}

/// # Safety
/// As the C library's function of this name: `at` points to a `timespec`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, at: *mut libc::timespec) -> c_int {
    let Some(real) = real() else { return -1 };
    // SAFETY: the caller's promise, passed on.
    let done = unsafe { real(clock, at) };
    let is_wall = matches!(clock, libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE);
    if done != 0 || !is_wall {
        return done;
    }
    let Some(wrong) = wrong() else { return done };
    let by_ns = wrong.by_ns.load(Relaxed);
    if by_ns != 0 {
        wrong.told.fetch_add(1, Relaxed);
        // SAFETY: the caller promises a `timespec`, and it has just been filled in.
        let time = unsafe { &mut *at };
        let now = time.tv_sec * SECOND_NS + time.tv_nsec + by_ns;
        (time.tv_sec, time.tv_nsec) = (now.div_euclid(SECOND_NS), now.rem_euclid(SECOND_NS));
    }
    done
}
