//! A process that was killed, and only later a power cut: what the next life found counts as promised.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use barque_wal::{Driver, Recovered, Wal, files::CutFiles};

use crate::{
    DIR, done, entries, indexes,
    seam::{Seam, Step},
    tiny,
};

/// Files whose process is killed before an operation: what was written is seen by the next, and is not durable.
#[derive(Clone)]
pub struct Killable {
    pub files: CutFiles,
    /// Operations, or syncs, until then; 0: it lives.
    operations: Arc<AtomicU64>,
    syncs: Arc<AtomicU64>,
}

impl Killable {
    pub fn new(files: CutFiles) -> Killable {
        Killable {
            files,
            operations: Arc::default(),
            syncs: Arc::default(),
        }
    }

    /// In the `count`-th operation from now (1 is the next).
    pub fn kill_after(&self, count: u64) {
        self.operations.store(count, Ordering::SeqCst);
    }

    /// Before the `count`-th sync of a file from now.
    fn kill_in_sync(&self, count: u64) {
        self.syncs.store(count, Ordering::SeqCst);
    }

    pub fn restore(&self) {
        self.kill_after(0);
        self.kill_in_sync(0);
        self.files.restore();
    }

    pub fn seam(&self) -> Seam {
        let this = self.clone();
        Seam::new(self.files.clone(), move |step, _| {
            let counts_down = |count: &AtomicU64| {
                let before =
                    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                before == Ok(1)
            };
            if counts_down(&this.operations) || (step == Step::Sync && counts_down(&this.syncs)) {
                this.files.halt();
            }
        })
    }

    fn open_driven(&self) -> (Wal, Recovered, Driver) {
        Wal::open_driven(Path::new(DIR), Arc::new(self.seam()), tiny()).unwrap()
    }
}

/// The batch was written and never synced; the second life tells its peers that it has it.
#[test]
fn a_batch_found_after_a_kill_survives_a_power_cut() {
    for seed in 0..20 {
        let killable = Killable::new(CutFiles::new(seed));
        let (wal, _, mut driver) = killable.open_driven();
        wal.append(entries(1, 1..=3), done().0).unwrap();
        assert!(driver.work());
        wal.append(entries(1, 4..=6), done().0).unwrap();
        killable.kill_in_sync(1);
        assert!(!driver.work(), "it is killed");
        drop((wal, driver));

        killable.restore();
        let (wal, known, driver) = killable.open_driven();
        assert_eq!(known.last, Some((1, 6)), "the kernel has it all");
        killable.files.cut();
        drop((wal, driver));

        killable.restore();
        let (wal, known, _driver) = killable.open_driven();
        assert_eq!(known.last, Some((1, 6)), "seed {seed}");
        assert_eq!(indexes(&wal.read(1..7, usize::MAX).unwrap()), [1, 2, 3, 4, 5, 6]);
    }
}
