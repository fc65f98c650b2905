//! A process that exits while databases are opened and closed has the exit code that it was given.

use std::{path::Path, process::Command, thread, time::Duration};

use barque_store::kv::rocks;

/// Set in a process that is to exit; names a directory.
const CHILD: &str = "BARQUE_TEST_EXIT_DIR";
const CODE: i32 = 7;

#[test]
fn databases_under_way_do_not_change_the_exit_code() {
    if let Ok(dir) = std::env::var(CHILD) {
        exit_in_the_middle(Path::new(&dir));
    }
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "exit::databases_under_way_do_not_change_the_exit_code"])
            .env(CHILD, dir.path())
            .output()
            .unwrap();
        assert_eq!(status.status.code(), Some(CODE), "{status:?}");
    }
}

fn exit_in_the_middle(dir: &Path) -> ! {
    for number in 0..4 {
        let dir = dir.join(number.to_string());
        thread::spawn(move || {
            loop {
                drop(rocks::open(&dir, 1 << 20));
            }
        });
    }
    thread::sleep(Duration::from_millis(300));
    std::process::exit(CODE);
}
