//! What a power cut leaves of the data directory: names and contents that were synced, and nothing else.
//!
//! The C library's functions that sync and rename are defined here for the whole test binary, as the simulator does it:
//! so it is seen what the program really asks of the kernel, without a seam in it.

#![allow(unsafe_code)]

use std::{
    cell::RefCell,
    ffi::{CStr, OsStr, c_char, c_int},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use barque_store::Store;

use crate::{
    files::{copy_tree, filled, names},
    support::*,
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Call {
    Sync(PathBuf),
    Rename(PathBuf, PathBuf),
}

thread_local! {
    static CALLS: RefCell<Option<Vec<Call>>> = const { RefCell::new(None) };
}

fn note(call: impl FnOnce() -> Call) {
    CALLS.with_borrow_mut(|calls| {
        if let Some(calls) = calls {
            calls.push(call());
        }
    });
}

fn sync(file: c_int, number: libc::c_long) -> c_int {
    note(|| Call::Sync(fs::read_link(format!("/proc/self/fd/{file}")).unwrap()));
    // SAFETY: the kernel checks the descriptor.
    unsafe { libc::syscall(number, file) as c_int }
}

/// As the C library's.
#[unsafe(no_mangle)]
pub extern "C" fn fsync(file: c_int) -> c_int {
    sync(file, libc::SYS_fsync)
}

/// As the C library's.
#[unsafe(no_mangle)]
pub extern "C" fn fdatasync(file: c_int) -> c_int {
    sync(file, libc::SYS_fdatasync)
}

/// # Safety
/// As the C library's: both end in a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let path = |name| PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    note(|| Call::Rename(path(from), path(to)));
    // SAFETY: the caller's promise, passed on.
    unsafe { libc::syscall(libc::SYS_renameat, libc::AT_FDCWD, from, libc::AT_FDCWD, to) as c_int }
}

/// What this thread asks of the kernel meanwhile.
fn recorded(work: impl FnOnce()) -> Vec<Call> {
    CALLS.set(Some(Vec::new()));
    work();
    CALLS.take().unwrap()
}

/// Where it is in the record.
fn at(calls: &[Call], wanted: impl Fn(&Call) -> bool, what: &str) -> usize {
    let found = calls.iter().position(wanted);
    found.unwrap_or_else(|| panic!("{what}: {calls:#?}"))
}

fn renamed_to(calls: &[Call], path: &Path) -> usize {
    at(
        calls,
        |call| matches!(call, Call::Rename(_, to) if to == path),
        "renamed",
    )
}

fn is_synced(calls: &[Call], path: &Path) -> bool {
    calls.contains(&Call::Sync(path.to_owned()))
}

/// The pointer's new content was durable before its name moved, and the move is durable at the end.
fn pointer_is_durable(calls: &[Call], home: &Path) {
    let moved = renamed_to(calls, &home.join("CURRENT_STATE"));
    assert!(
        is_synced(&calls[..moved], &home.join("CURRENT_STATE.new")),
        "{calls:#?}"
    );
    assert!(
        is_synced(&calls[moved..], home),
        "a power cut brings the old name back: {calls:#?}"
    );
}

#[test]
fn the_first_state_is_named_durably() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("state");
    let calls = recorded(|| drop(Store::open(config(&home)).unwrap()));
    pointer_is_durable(&calls, &home);
    assert!(is_synced(&calls, dir.path()), "{calls:#?}");
}

/// The log is purged once an install returns: nothing of the new state may be lost then.
#[test]
fn an_installed_state_survives_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("state");
    let (_store, mut applier) = Store::open(config(&home)).unwrap();
    let (_other, mut other) = filled(&dir.path().join("other"));
    let copy = dir.path().join("copy");
    other.checkpoint(&copy).unwrap();
    let files = names(&copy);
    let calls = recorded(|| applier.install(&copy).unwrap());
    let adopted = renamed_to(&calls, &home.join("state-00000002"));
    for file in files {
        assert!(
            is_synced(&calls[..adopted], &copy.join(&file)),
            "{file}: {calls:#?}"
        );
    }
    assert!(is_synced(&calls[..adopted], &copy), "{calls:#?}");
    let moved = renamed_to(&calls, &home.join("CURRENT_STATE"));
    assert!(
        is_synced(&calls[adopted..moved], &home),
        "the pointer may name nothing: {calls:#?}"
    );
    pointer_is_durable(&calls, &home);
}

/// The end of a manifest is cut off only when the original is safe.
#[test]
fn a_torn_manifest_is_kept_durably_before_it_is_cut() {
    let dir = tempfile::tempdir().unwrap();
    drop(filled(&dir.path().join("whole")));
    let home = dir.path().join("state");
    copy_tree(&dir.path().join("whole"), &home);
    let state = home.join("state-00000001");
    let manifest = state.join(fs::read_to_string(state.join("CURRENT")).unwrap().trim_end());
    let torn = [
        &fs::read(&manifest).unwrap()[..],
        &[9, 9, 9, 9, 40, 0, 1],
        &[0; 60],
    ]
    .concat();
    fs::write(&manifest, &torn).unwrap();
    let calls = recorded(|| drop(Store::open(config(&home)).unwrap()));
    let cut = renamed_to(&calls, &manifest);
    let kept = state.join(format!(
        "{}.torn",
        manifest.file_name().unwrap().to_str().unwrap()
    ));
    assert_eq!(fs::read(&kept).unwrap(), torn);
    assert!(
        is_synced(&calls[..cut], &kept) && is_synced(&calls[..cut], &state),
        "{calls:#?}"
    );
    assert!(
        is_synced(&calls[..cut], &manifest.with_extension("cut")),
        "{calls:#?}"
    );
    assert!(is_synced(&calls[cut..], &state), "{calls:#?}");
}
