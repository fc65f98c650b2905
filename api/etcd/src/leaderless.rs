//! Notices when the member has been without a leader that a quorum stands behind.
//!
//! What Raft last heard is not enough: a leader that was cut off still names itself, and a follower that was cut
//! off still names the one it knew. So the cluster is asked, once per election timeout, by a read barrier.
//! Ending a stream costs its client far more than refusing a request, so there are three election timeouts of
//! patience, as in etcd.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;

const PATIENCE_ELECTIONS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quorum {
    /// The cluster has answered lately.
    pub answers: bool,
    /// How often patience has run out.
    pub losses: u64,
}

/// What is known, and the task that asks by `probe`, which says whether the cluster answered, until `stopping`.
pub(crate) fn monitor<F>(
    probe: impl Fn() -> F + Send + 'static,
    election_timeout: Duration,
    stopping: CancellationToken,
) -> (watch::Receiver<Quorum>, impl Future<Output = ()> + Send + 'static)
where
    F: Future<Output = bool> + Send,
{
    let (published, receiver) = watch::channel(Quorum {
        answers: true,
        losses: 0,
    });
    let task = async move {
        tokio::select! {
            () = stopping.cancelled() => {}
            () = follow(probe, election_timeout, published) => {}
        }
    };
    (receiver, task)
}

async fn follow<F>(probe: impl Fn() -> F, election_timeout: Duration, published: watch::Sender<Quorum>)
where
    F: Future<Output = bool>,
{
    let mut silent = 0;
    loop {
        // Turns are counted rather than time: while this member itself stood still, nobody was asked.
        let end_of_turn = Instant::now() + election_timeout;
        let answered = timeout_at(end_of_turn, probe()).await == Ok(true);
        silent = if answered { 0 } else { silent + 1 };
        if answered {
            published.send_if_modified(|quorum| !std::mem::replace(&mut quorum.answers, true));
        } else if silent >= PATIENCE_ELECTIONS {
            published.send_if_modified(|quorum| {
                let lost = std::mem::replace(&mut quorum.answers, false);
                quorum.losses += u64::from(lost);
                lost
            });
        }
        sleep_until(end_of_turn).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    };

    use tokio::task::JoinHandle;

    use super::*;

    fn spawn<F>(
        probe: impl Fn() -> F + Send + 'static,
        election_timeout: Duration,
        stopping: CancellationToken,
    ) -> (watch::Receiver<Quorum>, JoinHandle<()>)
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let (quorum, task) = monitor(probe, election_timeout, stopping);
        (quorum, tokio::spawn(task))
    }

    #[tokio::test]
    async fn a_cluster_that_stays_silent_is_noticed_once_and_its_return_too() {
        let there = Arc::new(AtomicBool::new(true));
        let probe = {
            let there = Arc::clone(&there);
            move || std::future::ready(there.load(SeqCst))
        };
        let stopping = CancellationToken::new();
        let (mut quorum, task) = spawn(probe, Duration::from_millis(1), stopping.clone());
        for losses in 1..=3 {
            there.store(false, SeqCst);
            assert_eq!(
                *quorum.wait_for(|now| !now.answers).await.unwrap(),
                Quorum {
                    answers: false,
                    losses
                }
            );
            there.store(true, SeqCst);
            assert_eq!(
                *quorum.wait_for(|now| now.answers).await.unwrap(),
                Quorum {
                    answers: true,
                    losses
                }
            );
        }
        stopping.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_member_that_stood_still_asks_before_it_judges() {
        let probe = || async {
            tokio::task::yield_now().await;
            true
        };
        let stopping = CancellationToken::new();
        let (quorum, task) = spawn(probe, Duration::from_millis(50), stopping.clone());
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            // The only thread there is: all stand still.
            std::thread::sleep(Duration::from_millis(300));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(quorum.borrow().losses, 0);
        stopping.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_counts_as_none() {
        let (mut quorum, task) = spawn(
            std::future::pending,
            Duration::from_millis(1),
            CancellationToken::new(),
        );
        quorum.wait_for(|now| now.losses == 1).await.unwrap();
        task.abort();
    }
}
