//! How a process ends while databases may still be open.

#![allow(unsafe_code)]

use std::{
    ffi::{c_int, c_void},
    sync::Once,
};

unsafe extern "C" {
    /// Of the C library: a function that is given the exit code.
    fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
}

extern "C" fn leave(code: c_int, _: *mut c_void) {
    // SAFETY: it ends the process, with nothing run any more.
    unsafe { libc::_exit(code) }
}

/// From now on the process exits without C++'s static destructors. They would take away locks which RocksDB's threads
/// use until the end: "pthread lock: Invalid argument", and SIGABRT in the place of the exit code.
pub fn without_destructors() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the function outlives everything, and its argument is not used.
        let refused = unsafe { on_exit(leave, std::ptr::null_mut()) };
        if refused != 0 {
            tracing::warn!("the process may abort when it exits");
        }
    });
}
