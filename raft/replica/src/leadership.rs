//! Who leads, as this member knows it: published for all who route or fence by it.

use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;

use crate::{
    Leadership, MemberId,
    applied::Applied,
    metrics::{Counters, count},
    types::Raft,
};

/// Follows Raft's state and what is applied, until Raft stops.
pub async fn follow(
    me: u64,
    raft: Raft,
    applied: Arc<Applied>,
    counters: Arc<Counters>,
    published: Arc<watch::Sender<Leadership>>,
) {
    let mut server = raft.server_metrics();
    let mut term = applied.term();
    loop {
        let now = {
            let metrics = server.borrow_watched();
            let leader = metrics.current_leader;
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
        let changed = tokio::select! {
            changed = server.changed() => changed.is_ok(),
            changed = term.changed() => changed.is_ok(),
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
