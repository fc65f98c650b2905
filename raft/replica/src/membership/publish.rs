//! What a member tells of itself, and how it becomes part of the membership: [`Announcement`].

use std::time::Duration;

use barque_proto::peer as pb;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::{MemberError, Membership, RETRY_AFTER};
use crate::{
    peer::{Gate, link::Lane},
    planted, refusal,
    types::Node,
};

/// What a member tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    pub name: String,
    pub client_urls: Vec<String>,
    pub incarnation: u64,
}

impl Announcement {
    fn is_in(&self, node: &Node) -> bool {
        self.name == node.name && self.client_urls == node.client_urls && self.incarnation == node.incarnation
    }

    /// `None`: the ID belongs to another incarnation. That is told once and never changes.
    fn put_into(&self, node: &Node) -> Option<Node> {
        let is_first = node.incarnation == 0 || planted("wiped-voter-votes");
        (is_first || node.incarnation == self.incarnation).then(|| Node {
            name: self.name.clone(),
            client_urls: self.client_urls.clone(),
            incarnation: self.incarnation,
            ..node.clone()
        })
    }
}

impl Membership {
    /// Makes the membership hold what this member tells of itself, as soon as there is a leader.
    pub async fn publish(self, gate: Gate, mine: Announcement) {
        let mut server = self.raft.server_metrics();
        let mut leadership = self.leadership.clone();
        loop {
            // What is not committed may still be lost.
            let committed = server.borrow_watched().committed_membership_config.clone();
            if committed
                .membership()
                .get_node(&self.me)
                .is_some_and(|node| mine.is_in(node))
            {
                return;
            }
            let leader = leadership.borrow_and_update().leader.map(|leader| leader.0);
            let published = match leader {
                None => false,
                Some(leader) if leader == self.me => {
                    let published = self.publish_here(self.me, &mine).await;
                    published
                        .inspect_err(|status| gate.refused_by(self.me, status))
                        .is_ok()
                }
                Some(leader) => self.publish_at(leader, &mine).await,
            };
            let pause = if published {
                Duration::from_secs(5)
            } else {
                RETRY_AFTER
            };
            tokio::select! {
                changed = server.changed() => if changed.is_err() { return },
                () = sleep(pause) => {}
            }
        }
    }

    async fn publish_at(&self, leader: u64, mine: &Announcement) -> bool {
        let Some(link) = self.links.to_member(leader) else {
            return false;
        };
        // The incarnation is on every call.
        let request = pb::PublishRequest {
            name: mine.name.clone(),
            client_urls: mine.client_urls.clone(),
        };
        let mut client = link.client(Lane::Control);
        match timeout(Duration::from_secs(5), client.publish(link.request(request))).await {
            Ok(reply) => link.checked(reply).is_ok(),
            Err(_) => false,
        }
    }

    /// As the leader: what a member tells of itself. Its peer URLs stay what they are.
    pub async fn publish_here(&self, id: u64, told: &Announcement) -> Result<(), Status> {
        let _one = self.changing.lock().await;
        let current = self.latest().await.map_err(|error| error.to_status())?;
        let node = current
            .get_node(&id)
            .ok_or_else(|| MemberError::NotFound.to_status())?;
        if told.is_in(node) {
            return Ok(());
        }
        let node = told
            .put_into(node)
            .ok_or_else(|| Status::failed_precondition(refusal::wiped(id)))?;
        let changed = self.set_node(&current, id, node).await;
        changed.map_err(|error| error.to_status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_told_once() {
        let told = |incarnation| Announcement {
            name: "a".into(),
            client_urls: vec!["http://c:1".into()],
            incarnation,
        };
        let node = Node {
            peer_urls: vec!["http://p:1".into()],
            to_vote: true,
            ..Node::default()
        };
        let first = told(7).put_into(&node).unwrap();
        assert!(told(7).is_in(&first) && !told(7).is_in(&node));
        assert_eq!((first.peer_urls, first.to_vote), (node.peer_urls, node.to_vote));
        let first = told(7).put_into(&Node::default()).unwrap();
        assert_eq!(told(7).put_into(&first).unwrap(), first);
        assert_eq!(told(8).put_into(&first), None);
    }
}
