//! What a member asks before it belongs to anything, and what it is told: has this ID been here before?
//!
//! A member with an empty data directory that is to found a cluster takes part only after **every** other member of
//! the initial cluster has noted its incarnation, durably, and knew no other. Whoever counts its vote can only be
//! one of those (or, joining later, learns the incarnation from the log), so no second data directory ever votes
//! under the same ID. A quorum of the others would not be enough: that quorum may share no member that is alive
//! with the one that was asked the first time.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use barque_proto::peer as pb;
use futures_util::future::join_all;
use parking_lot::Mutex;
use pb::{
    discovery_client::DiscoveryClient,
    discovery_server::{Discovery, DiscoveryServer},
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Response, Status, transport::Channel};

use super::{
    Gate,
    certificate::{Holders, Shown},
    link::{Address, Dialing, channel},
};
use crate::{
    MemberConfig, ReplicaConfig, StartError, codec, identity, planted, refusal,
    types::{Me, Membership},
};

const ASK_TIMEOUT: Duration = Duration::from_secs(2);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// While nothing changes, it is said this often who is waited for.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Answers [`Discovery`]; knows the members once Raft runs.
#[derive(Clone)]
pub struct Directory {
    gate: Gate,
    /// A member that has taken part before answers once it knows what its log says of the others; one that is to
    /// begin answers at once, since those who ask may be waited for here.
    answers: Arc<AtomicBool>,
    pub initialized: Arc<AtomicBool>,
    listed: Arc<Mutex<Listed>>,
    /// Whose certificates are whose.
    pub holders: Holders,
}

/// The membership, as it is told to those who ask.
#[derive(Default)]
struct Listed {
    members: Vec<pb::membership::NodeEntry>,
    voters: Vec<u64>,
}

impl Directory {
    pub fn new(gate: Gate, answers: bool) -> Self {
        Self {
            gate,
            answers: Arc::new(AtomicBool::new(answers)),
            initialized: Arc::default(),
            listed: Arc::default(),
            holders: Holders::default(),
        }
    }

    pub fn list(&self, membership: &Membership) {
        self.holders
            .list(membership.nodes().map(|(id, node)| (*id, node)));
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        *self.listed.lock() = Listed {
            members: codec::node_entries(membership),
            voters: voters.into_iter().collect(),
        };
        self.answers.store(true, Ordering::Release);
    }

    pub fn service(&self) -> DiscoveryServer<Self> {
        DiscoveryServer::new(self.clone())
    }
}

#[tonic::async_trait]
impl Discovery for Directory {
    async fn identify(
        &self,
        request: Request<pb::IdentifyRequest>,
    ) -> Result<Response<pb::IdentifyReply>, Status> {
        let shown = request.extensions().get::<Shown>().cloned();
        let asked = request.into_inner();
        if asked.incarnation != 0 {
            let checked = self.holders.check(shown.as_ref(), asked.member_id);
            checked.map_err(|reason| self.gate.refuse(reason))?;
        }
        shown.inspect(Shown::settle);
        if !self.answers.load(Ordering::Acquire) {
            return Err(Status::unavailable("the member is starting"));
        }
        if asked.incarnation != 0 && asked.cluster_id == self.gate.me.cluster_id {
            self.gate
                .introduce(asked.member_id, asked.incarnation)
                .map_err(|error| {
                    Status::internal(format!("cannot remember member {:x}: {error}", asked.member_id))
                })?;
        }
        let listed = self.listed.lock();
        Ok(Response::new(pb::IdentifyReply {
            cluster_id: self.gate.me.cluster_id,
            member_id: self.gate.me.member_id,
            initialized: self.initialized.load(Ordering::Acquire),
            known_incarnation: match planted("wiped-voter-votes") {
                true => asked.incarnation,
                false => self.gate.known.incarnation_of(asked.member_id).unwrap_or(0),
            },
            members: listed.members.clone(),
            voters: listed.voters.clone(),
        }))
    }
}

/// Asks the other members of the initial cluster.
pub struct Inquiry {
    others: Vec<Other>,
}

/// Another member, as the flags have it.
struct Other {
    name: String,
    /// Its ID, if it is a founder.
    member_id: u64,
    peer_urls: Vec<String>,
    client: DiscoveryClient<Channel>,
}

impl Other {
    async fn ask(&self, asked: pb::IdentifyRequest) -> Result<pb::IdentifyReply, String> {
        match timeout(ASK_TIMEOUT, self.client.clone().identify(asked)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) if matches!(status.code(), Code::Internal | Code::FailedPrecondition) => {
                Err(status.message().to_string())
            }
            Ok(Err(_)) | Err(_) => Err("does not answer".into()),
        }
    }

    /// Whether this member has noted ours, or why that is to be waited for.
    fn has_noted(&self, me: Me, reply: &pb::IdentifyReply) -> Result<Result<(), String>, StartError> {
        if reply.cluster_id != me.cluster_id {
            let text = of_another_cluster(reply, me.cluster_id);
            // A cluster that runs is there to stay. Of two that are only beginning, either may be meant.
            return match reply.initialized {
                true => Err(StartError::Identity(text)),
                false => Ok(Err(text)),
            };
        }
        let listed = reply.members.iter().any(|member| member.id == me.member_id);
        if reply.initialized && !reply.members.is_empty() && !listed {
            return Err(StartError::Identity(refusal::removed(me.member_id)));
        }
        match reply.known_incarnation {
            known if known != 0 && known != me.incarnation => {
                Err(StartError::Identity(refusal::wiped(me.member_id)))
            }
            _ if reply.member_id != self.member_id => Ok(Err(format!(
                "member {:x} answers there, not {:x}",
                reply.member_id, self.member_id
            ))),
            0 => Ok(Err("has not noted this member".into())),
            _ => Ok(Ok(())),
        }
    }
}

impl Inquiry {
    pub fn new(config: &ReplicaConfig, dialing: &Dialing) -> Result<Self, StartError> {
        let others = config
            .initial_cluster
            .iter()
            .filter(|member| member.name != config.name);
        let other = |member: &MemberConfig| -> Result<Other, StartError> {
            let addresses: Result<Vec<Address>, String> =
                member.peer_urls.iter().map(|url| Address::parse(url)).collect();
            Ok(Other {
                name: member.name.clone(),
                peer_urls: member.peer_urls.clone(),
                member_id: identity::member_id(&member.peer_urls, &config.initial_cluster_token),
                client: DiscoveryClient::new(channel(
                    dialing.clone(),
                    addresses.map_err(StartError::Config)?,
                    |_| Ok(()),
                )),
            })
        };
        Ok(Self {
            others: others.map(other).collect::<Result<_, _>>()?,
        })
    }

    /// The flags name other members.
    pub fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// The members of this cluster that answer, and where.
    pub async fn who_answers(&self, me: Me) -> Vec<(u64, Vec<String>)> {
        let asking = self.others.iter().map(|other| async move {
            let reply = other.ask(pb::IdentifyRequest::default()).await.ok()?;
            let is_ours = reply.cluster_id == me.cluster_id && reply.member_id != me.member_id;
            is_ours.then(|| (reply.member_id, other.peer_urls.clone()))
        });
        join_all(asking).await.into_iter().flatten().collect()
    }

    /// Returns once every other member of the initial cluster has noted this one, or one of them knows better.
    /// However long that takes: until then this member must not take part.
    pub async fn introduce(&self, me: Me) -> Result<(), StartError> {
        let asked = pb::IdentifyRequest {
            member_id: me.member_id,
            incarnation: me.incarnation,
            cluster_id: me.cluster_id,
        };
        let mut missing: Vec<&Other> = self.others.iter().collect();
        let mut wait = Wait::default();
        while !missing.is_empty() {
            let asking = missing
                .iter()
                .map(|other| async move { (*other, other.ask(asked).await) });
            let mut still_missing = Vec::new();
            let mut reasons = Vec::new();
            for (other, answer) in join_all(asking).await {
                let noted = match answer {
                    Ok(reply) => other.has_noted(me, &reply)?,
                    Err(reason) => Err(reason),
                };
                if let Err(reason) = noted {
                    still_missing.push(other);
                    reasons.push(format!("{}: {reason}", other.name));
                }
            }
            missing = still_missing;
            if !missing.is_empty() {
                wait.tell(reasons.join("; "));
                sleep(ASK_AGAIN_AFTER).await;
            }
        }
        Ok(())
    }

    async fn ask_all(&self, asked: pb::IdentifyRequest) -> Vec<pb::IdentifyReply> {
        let asking = self.others.iter().map(|other| other.ask(asked));
        join_all(asking).await.into_iter().flatten().collect()
    }

    /// For `--initial-cluster-state existing`: the cluster's ID and ours, from a member that has us on its list.
    pub async fn join(&self, peer_urls: &[String]) -> Result<(u64, u64), StartError> {
        let replies = self.ask_all(pb::IdentifyRequest::default()).await;
        if replies.is_empty() {
            return Err(StartError::Identity(
                "no member of the existing cluster answers".into(),
            ));
        }
        let mut taken = None;
        for reply in &replies {
            match place_in(reply, peer_urls) {
                Some(Place::Free(member_id)) => return self.joined(reply.cluster_id, member_id).await,
                Some(Place::Taken(member_id)) => taken = Some(member_id),
                None => {}
            }
        }
        Err(StartError::Identity(match taken {
            Some(member_id) => refusal::wiped(member_id),
            None => format!(
                "the existing cluster has no member with the peer URLs {}: run `etcdctl member add` first",
                peer_urls.join(",")
            ),
        }))
    }

    async fn joined(&self, cluster_id: u64, member_id: u64) -> Result<(u64, u64), StartError> {
        // A member that is behind may not have the newcomer on its list yet: that says nothing.
        let replies = self
            .ask_all(pb::IdentifyRequest {
                member_id,
                ..pb::IdentifyRequest::default()
            })
            .await;
        for reply in &replies {
            if reply.cluster_id != cluster_id {
                return Err(StartError::Identity(of_another_cluster(reply, cluster_id)));
            }
            if reply.known_incarnation != 0 {
                return Err(StartError::Identity(refusal::wiped(member_id)));
            }
        }
        Ok((cluster_id, member_id))
    }
}

/// The place of a member in an existing cluster.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Free(u64),
    /// It votes already, or has told its incarnation: whoever held it has lost its data.
    Taken(u64),
}

/// Where a member's list has these peer URLs.
fn place_in(reply: &pb::IdentifyReply, peer_urls: &[String]) -> Option<Place> {
    let sorted = |urls: &[String]| {
        let mut urls = urls.to_vec();
        urls.sort_unstable();
        urls
    };
    let ours = sorted(peer_urls);
    let entry = reply.members.iter().find(|entry| {
        let node = entry.node.as_ref();
        node.is_some_and(|node| sorted(&node.peer_urls) == ours)
    })?;
    let told = entry.node.as_ref().is_some_and(|node| node.incarnation != 0);
    Some(match told || reply.voters.contains(&entry.id) {
        true => Place::Taken(entry.id),
        false => Place::Free(entry.id),
    })
}

fn of_another_cluster(reply: &pb::IdentifyReply, cluster_id: u64) -> String {
    format!(
        "member {:x} is of cluster {:x}, this member's flags make cluster {cluster_id:x}: check --initial-cluster and \
         --initial-cluster-token",
        reply.member_id, reply.cluster_id
    )
}

/// Says whom a member waits for: when that changes, and now and then while it does not.
#[derive(Default)]
struct Wait {
    told: Option<(String, Instant)>,
}

impl Wait {
    fn tell(&mut self, reasons: String) {
        let news = match &self.told {
            Some((before, at)) => *before != reasons || at.elapsed() >= TELL_EVERY,
            None => true,
        };
        if news {
            tracing::info!(
                "waiting for every other member of --initial-cluster, as each must once before the first start: \
                 {reasons}"
            );
            self.told = Some((reasons, Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, path::Path};

    use tokio_stream::wrappers::TcpListenerStream;

    use super::*;
    use crate::{
        config::tests::example,
        known_peers::{KnownPeers, Told},
        types::{Node, Start},
    };

    fn dialing(config: &ReplicaConfig) -> Dialing {
        Dialing {
            host: config.host.clone(),
            tls: None,
            timeout: config.election_timeout,
        }
    }

    /// The members a, b and c of one cluster; the peers' listeners are bound from the start.
    struct Cluster {
        dir: tempfile::TempDir,
        listeners: Vec<Option<TcpListener>>,
        config: ReplicaConfig,
    }

    impl Cluster {
        fn new() -> Self {
            let listeners: Vec<TcpListener> = (0..3)
                .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
                .collect();
            let member = |(name, listener): (&str, &TcpListener)| MemberConfig {
                name: name.into(),
                peer_urls: vec![format!("http://{}", listener.local_addr().unwrap())],
            };
            let initial_cluster = ["a", "b", "c"].into_iter().zip(&listeners).map(member).collect();
            let config = ReplicaConfig {
                name: "a".into(),
                initial_cluster,
                ..example()
            };
            Self {
                dir: tempfile::tempdir().unwrap(),
                listeners: listeners.into_iter().map(Some).collect(),
                config,
            }
        }

        fn me(&self, number: usize, incarnation: u64) -> Me {
            let token = &self.config.initial_cluster_token;
            Me {
                cluster_id: identity::cluster_id(&self.config.initial_cluster, token),
                member_id: identity::member_id(&self.config.initial_cluster[number].peer_urls, token),
                incarnation,
                start: Start { number: 1, life: 1 },
            }
        }

        fn known(&self, number: usize) -> Arc<KnownPeers> {
            let dir = self.dir.path().join(number.to_string());
            std::fs::create_dir_all(&dir).unwrap();
            let dir = Path::new(&dir);
            if !KnownPeers::path(dir).exists() {
                KnownPeers::create(dir).unwrap();
            }
            let known = KnownPeers::load(dir, false).unwrap().unwrap();
            known.expect((0..3).map(|number| self.me(number, 0).member_id));
            Arc::new(known)
        }

        /// Begins to answer questions, as a member whose own incarnation is its number.
        fn serve(&mut self, number: usize) -> Directory {
            let gate = Gate::new(self.me(number, number as u64), self.known(number));
            let directory = Directory::new(gate, true);
            let listener = self.listeners[number].take().unwrap();
            listener.set_nonblocking(true).unwrap();
            let incoming = TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            let service = directory.service();
            tokio::spawn(
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(incoming),
            );
            directory
        }

        async fn introduce(&self, me: Me) -> Result<(), String> {
            let inquiry = Inquiry::new(&self.config, &dialing(&self.config)).unwrap();
            inquiry.introduce(me).await.map_err(|error| error.to_string())
        }
    }

    #[tokio::test]
    async fn everybody_has_noted_a_newcomer_durably_before_it_goes_on() {
        let mut cluster = Cluster::new();
        cluster.serve(1);
        cluster.serve(2);
        let me = cluster.me(0, 100);
        cluster.introduce(me).await.unwrap();
        for number in [1, 2] {
            assert_eq!(cluster.known(number).incarnation_of(me.member_id), Some(100));
        }
        // Asking again is harmless; another data directory is refused.
        cluster.introduce(me).await.unwrap();
        let refused = cluster.introduce(cluster.me(0, 101)).await.unwrap_err();
        assert!(refused.contains("has already been bootstrapped"), "{refused}");
    }

    #[tokio::test]
    async fn one_that_does_not_know_is_not_enough() {
        let mut cluster = Cluster::new();
        let (first, second) = (cluster.me(0, 100), cluster.me(0, 101));
        // Only b remembers the first data directory.
        let b_knows = cluster.known(1).check(
            first.member_id,
            Told {
                incarnation: first.incarnation,
                start: None,
                past: "",
            },
        );
        assert_eq!(b_knows.unwrap(), Ok(()));
        let c = cluster.serve(2);
        let inquiry = Inquiry::new(&cluster.config, &dialing(&cluster.config)).unwrap();
        let asking = tokio::spawn(async move { inquiry.introduce(second).await });
        while c.gate.known.incarnation_of(second.member_id) != Some(101) {
            tokio::task::yield_now().await;
        }
        // c has noted the second one, and b, which is asked too, is down: that must not be enough.
        assert!(!asking.is_finished());
        cluster.serve(1);
        let refused = asking.await.unwrap().unwrap_err().to_string();
        assert!(refused.contains("has already been bootstrapped"), "{refused}");
    }

    #[tokio::test]
    async fn who_has_taken_part_answers_once_it_knows_what_its_log_says() {
        let cluster = Cluster::new();
        let asker = cluster.me(0, 101);
        let directory = Directory::new(Gate::new(cluster.me(1, 1), cluster.known(1)), false);
        let ask = async || {
            let asked = pb::IdentifyRequest {
                member_id: asker.member_id,
                incarnation: asker.incarnation,
                cluster_id: asker.cluster_id,
            };
            directory.identify(Request::new(asked)).await
        };
        assert_eq!(ask().await.unwrap_err().code(), Code::Unavailable);
        let node = Node {
            incarnation: 100,
            ..Node::default()
        };
        let nodes = std::collections::BTreeMap::from([(asker.member_id, node)]);
        let membership = Membership::new(vec![[asker.member_id].into()], nodes).unwrap();
        crate::membership::bind(&directory.gate, &membership);
        directory.list(&membership);
        let reply = ask().await.unwrap().into_inner();
        assert_eq!(reply.known_incarnation, 100);
        assert_eq!(reply.voters, [asker.member_id]);
    }

    #[tokio::test]
    async fn another_member_at_a_founders_address_does_not_answer_for_it() {
        let mut cluster = Cluster::new();
        let me = cluster.me(0, 100);
        let noted = |member_id, known_incarnation| pb::IdentifyReply {
            cluster_id: me.cluster_id,
            member_id,
            known_incarnation,
            ..pb::IdentifyReply::default()
        };
        cluster.serve(1);
        let inquiry = Inquiry::new(&cluster.config, &dialing(&cluster.config)).unwrap();
        let b = &inquiry.others[0];
        assert_eq!(b.has_noted(me, &noted(b.member_id, 100)).unwrap(), Ok(()));
        let waits = b.has_noted(me, &noted(77, 100)).unwrap().unwrap_err();
        assert!(waits.contains("member 4d answers there"), "{waits}");
        assert!(b.has_noted(me, &noted(77, 101)).is_err());
        assert!(b.has_noted(me, &noted(b.member_id, 0)).unwrap().is_err());
    }

    #[tokio::test]
    async fn another_cluster_is_fatal_only_when_it_runs() {
        let cluster = Cluster::new();
        let me = cluster.me(0, 100);
        let inquiry = Inquiry::new(&cluster.config, &dialing(&cluster.config)).unwrap();
        let reply = |initialized| pb::IdentifyReply {
            cluster_id: 1,
            initialized,
            ..pb::IdentifyReply::default()
        };
        let waits = inquiry.others[0].has_noted(me, &reply(false)).unwrap();
        assert!(waits.unwrap_err().contains("--initial-cluster-token"));
        let refused = inquiry.others[0].has_noted(me, &reply(true)).unwrap_err();
        assert!(refused.to_string().contains("is of cluster 1"));
    }

    #[test]
    fn only_a_place_that_nobody_ever_held_is_free() {
        let urls = |urls: &[&str]| -> Vec<String> { urls.iter().map(|url| url.to_string()).collect() };
        let listed = |incarnation, voters: &[u64]| pb::IdentifyReply {
            members: vec![pb::membership::NodeEntry {
                id: 7,
                node: Some(pb::Node {
                    peer_urls: urls(&["http://b", "http://a"]),
                    incarnation,
                    ..pb::Node::default()
                }),
            }],
            voters: voters.to_vec(),
            ..pb::IdentifyReply::default()
        };
        let ours = urls(&["http://a", "http://b"]);
        assert_eq!(place_in(&listed(0, &[]), &ours), Some(Place::Free(7)));
        assert_eq!(place_in(&listed(5, &[]), &ours), Some(Place::Taken(7)));
        assert_eq!(place_in(&listed(0, &[7]), &ours), Some(Place::Taken(7)));
        assert_eq!(place_in(&listed(0, &[]), &urls(&["http://a"])), None);
    }
}
