//! Who leads, as this member knows it: published for all who route or fence by it.

use std::{future::pending, sync::Arc, time::Duration};

use openraft::{Instant as _, async_runtime::watch::WatchReceiver};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use crate::{
    Leadership, MemberId,
    applied::Applied,
    metrics::{Counters, count},
    types::Raft,
};

/// While another leader is silent, this many times per patience it is looked whether it has spoken again.
const LOOKS_PER_PATIENCE: u32 = 4;

/// Follows Raft's state and what is applied, until Raft stops. Another leader that was not heard for `patience` is
/// named no more: Raft itself goes by the last committed vote, however long ago that was.
pub async fn follow(
    me: u64,
    raft: Raft,
    applied: Arc<Applied>,
    counters: Arc<Counters>,
    published: Arc<watch::Sender<Leadership>>,
    patience: Duration,
) {
    let mut server = raft.server_metrics();
    let mut term = applied.term();
    loop {
        let named = server.borrow_watched().current_leader;
        let silence = match named {
            Some(other) if other != me => Some(silence(&raft).await),
            _ => None,
        };
        let is_silent = silence.is_some_and(|silence| silence >= patience);
        let now = {
            let metrics = server.borrow_watched();
            let leader = metrics
                .current_leader
                .filter(|leader| !is_silent || Some(*leader) != named);
            let leads = metrics.state == openraft::ServerState::Leader && leader == Some(me);
            let current = metrics.vote.leader_id.term;
            // The first entry of a term is its leader's own: once it is applied, everything before it is.
            let is_self = leads && *term.borrow() == current;
            Leadership {
                term: current,
                leader: leader.map(MemberId),
                is_self,
            }
        };
        publish(&published, &counters, now);
        let look_again = async {
            match silence {
                None => pending().await,
                Some(_) if is_silent => sleep(patience / LOOKS_PER_PATIENCE).await,
                Some(silence) => sleep(patience - silence).await,
            }
        };
        let changed = tokio::select! {
            changed = server.changed() => changed.is_ok(),
            changed = term.changed() => changed.is_ok(),
            () = look_again => true,
        };
        if !changed {
            return publish(
                &published,
                &counters,
                Leadership {
                    leader: None,
                    is_self: false,
                    ..now
                },
            );
        }
    }
}

/// For how long this member has not heard of the leader that it follows; without end after a restart.
async fn silence(raft: &Raft) -> Duration {
    let last_word = raft.with_raft_state(|state| state.vote_last_modified()).await;
    last_word.ok().flatten().map_or(Duration::MAX, |at| at.elapsed())
}

fn publish(published: &watch::Sender<Leadership>, counters: &Counters, now: Leadership) {
    published.send_if_modified(|before| {
        if *before == now {
            return false;
        }
        if now.leader.is_some() && (now.leader, now.term) != (before.leader, before.term) {
            count(&counters.leader_changes_seen);
            let leader = now.leader.unwrap_or_default().0;
            tracing::info!(
                term = now.term,
                leader = format!("{leader:x}"),
                "there is a leader"
            );
        }
        *before = now;
        true
    });
}

/// Waits until who leads changes, at most until `limit`. When Raft has ended there is no news any more, and who asks
/// for it in a loop waits all the same.
pub async fn news(leadership: &mut watch::Receiver<Leadership>, limit: Instant) {
    if let Ok(Err(_)) = timeout_at(limit, leadership.changed()).await {
        sleep_until(limit).await;
    }
}

/// Asks `to` to lead, and waits, for a bounded time, until another member does; `true` when one does.
pub async fn hand_over(
    raft: &Raft,
    leadership: &watch::Receiver<Leadership>,
    to: u64,
    election_timeout: Duration,
) -> bool {
    let mut leadership = leadership.clone();
    let before = *leadership.borrow_and_update();
    if raft.trigger().transfer_leader(to).await.is_err() {
        return false;
    }
    let other = |now: &Leadership| now.leader.is_some() && now.leader != before.leader;
    let moved = timeout(2 * election_timeout, leadership.wait_for(other)).await;
    let moved = matches!(moved, Ok(Ok(_)));
    if !moved {
        tracing::warn!(to = format!("{to:x}"), "leadership was not handed over in time");
    }
    moved
}
