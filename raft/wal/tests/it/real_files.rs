//! Real files and many callers: completions in order, and one fsync for many of them.

use std::{
    io,
    sync::{Arc, Barrier, Mutex, mpsc},
};

use barque_wal::{Wal, WalConfig, files::RealFiles};

use crate::{entry, finish, indexes};

const CALLERS: u64 = 16;
const EACH: u64 = 200;

#[test]
fn one_fsync_serves_many_callers() {
    let dir = tempfile::tempdir().unwrap();
    let config = WalConfig {
        segment_bytes: 256 << 10,
        cache_bytes: 16 << 10,
    };
    let (wal, _) = Wal::open(&dir.path().join("wal"), Arc::new(RealFiles), config.clone()).unwrap();
    let completed: Arc<Mutex<Vec<u64>>> = Arc::default();
    let next = Arc::new(Mutex::new(1u64));
    let start = Arc::new(Barrier::new(CALLERS as usize));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (wal, next, completed, start) = (wal.clone(), next.clone(), completed.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                for _ in 0..EACH {
                    let (sender, receiver) = mpsc::channel();
                    {
                        let mut next = next.lock().unwrap();
                        let (index, completed) = (*next, completed.clone());
                        let done = Box::new(move |outcome: io::Result<()>| {
                            outcome.unwrap();
                            completed.lock().unwrap().push(index);
                            sender.send(index).unwrap();
                        });
                        wal.append(vec![entry(1, index, vec![index as u8; 300])], done)
                            .unwrap();
                        *next += 1;
                    }
                    let index = receiver.recv().unwrap();
                    assert_eq!(indexes(&wal.read(index..index + 1, 1).unwrap()), [index]);
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|caller| caller.join().unwrap());
    let total = CALLERS * EACH;
    assert_eq!(*completed.lock().unwrap(), (1..=total).collect::<Vec<_>>());
    let stats = wal.stats();
    println!(
        "{total} appends, {} fsyncs, mean {:.0} us",
        stats.fsyncs,
        stats.fsync_sum_s / stats.fsyncs as f64 * 1e6
    );
    assert!(
        stats.fsyncs < total,
        "{} fsyncs for {total} appends",
        stats.fsyncs
    );
    assert_eq!(stats.fsync_buckets.iter().sum::<u64>(), stats.fsyncs);
    drop(wal);

    let (wal, known) = Wal::open(&dir.path().join("wal"), Arc::new(RealFiles), config).unwrap();
    assert_eq!(known.last, Some((1, total)));
    let all = wal.read(1..total + 1, usize::MAX).unwrap();
    assert_eq!(indexes(&all), (1..=total).collect::<Vec<_>>());
    finish(|done| wal.purge(1, total - 10, done)).unwrap();
    wal.close();
    assert_eq!(
        indexes(&wal.read(total - 9..total + 1, usize::MAX).unwrap()).len(),
        10
    );
}
