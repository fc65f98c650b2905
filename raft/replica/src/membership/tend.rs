//! What the leader does to the membership by itself.

use std::collections::BTreeSet;

use openraft::{ChangeMembers, async_runtime::watch::WatchReceiver};
use tokio::time::sleep;

use super::{MemberError, Membership, RETRY_AFTER, is_joint, to_vote};

impl Membership {
    /// As the leader: ends what an earlier leader left half done, and makes voters of those that were added to become
    /// ones, one at a time, once they have caught up.
    pub async fn tend(self) {
        let mut server = self.raft.server_metrics();
        let mut leadership = self.leadership.clone();
        loop {
            let leads = leadership.borrow_and_update().is_self;
            let current = self.current();
            let has_work = leads && (is_joint(&current) || !to_vote(&current).is_empty());
            if has_work && let Err(error) = self.tend_once().await {
                tracing::debug!(%error, "the membership could not be tended");
            }
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
                // Progress is told by no event of its own.
                () = sleep(RETRY_AFTER), if has_work => {}
            }
        }
    }

    async fn tend_once(&self) -> Result<(), MemberError> {
        let _one = self.changing.lock().await;
        let current = self.latest().await?;
        if is_joint(current.membership()) {
            tracing::info!("finishing the change of membership that an earlier leader began");
            return self
                .change(&current, ChangeMembers::AddVoterIds(BTreeSet::new()), false)
                .await;
        }
        let is_ready = |id: &u64| {
            let told = current.get_node(id).is_some_and(|node| node.incarnation != 0);
            told && self.is_active(*id) && self.has_caught_up(*id)
        };
        if let Some(id) = to_vote(current.membership()).into_iter().find(is_ready) {
            self.make_voter(&current, id).await?;
            tracing::info!(member = format!("{id:x}"), "has caught up, and votes from now on");
        }
        Ok(())
    }
}
