//! From a data directory to a running member: identity, log, state, Raft, tasks.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use barque_store::{LogPosition, Revision, Store};
use barque_wal::Wal;
use tokio::sync::{Mutex, Notify, watch};

use crate::{
    Leadership, ReplicaConfig, StartError,
    applied::{Applied, FlushedState},
    barrier::BarrierTask,
    blocking::block,
    compactor::Compactor,
    data_dir::{Opened, Role, check_urls, make_data_dir, member_dir, open, role, sync_names},
    identity::{Identity, KnownPeers},
    keeper::Keeper,
    leadership,
    lessor::Lessor,
    lifecycle::{Phase, initialize, note_log, recover, watch_failure},
    log_store::LogStore,
    membership::{Announcement, Membership, bind, latest},
    metrics::Counters,
    oversight::{
        Oversight,
        condemned::{self, Condemned},
        damaged,
        divergence::Divergence,
        scrub::{Scrubber, Scrubs},
    },
    peer::{
        Gate,
        discovery::{Directory, Inquiry},
        link::{Links, client_config},
        listener,
        network::Network,
        server::PeerService,
        snapshot_receive::Receiver,
    },
    planted,
    proposals::{Limits, ProposalQueue},
    proposer::Proposer,
    raft_config::raft_config,
    rebuild::{self, Rebuild},
    retention::{LogSize, keep_bounded},
    running::Running,
    snapshot::clear_leftovers,
    state_machine::{Parts, StateMachine},
    types::{Me, Raft},
    waiters::Waiters,
};

const MAX_QUEUED_COMMANDS: usize = 20_000;
const MAX_QUEUED_BYTES: usize = 256 << 20;

/// Everything that the handle needs of a member that runs.
pub struct Started {
    pub me: Me,
    pub running: Arc<Running>,
    pub store: Store,
    pub wal: Wal,
    pub state_machine: StateMachine,
    pub applied: Arc<Applied>,
    pub waiters: Arc<Waiters>,
    pub queue: ProposalQueue,
    pub leadership: watch::Receiver<Leadership>,
    pub counters: Arc<Counters>,
    pub compacted: watch::Receiver<Revision>,
    pub ready: watch::Receiver<bool>,
    pub failed: watch::Receiver<Option<String>>,
    /// Moved on by the shutdown.
    pub phase: Arc<watch::Sender<Phase>>,
}

/// Runs on the member's own runtime.
pub async fn start(mut config: ReplicaConfig) -> Result<Started, StartError> {
    let (ground, opened) = prepare(&mut config).await?;
    let core = Core::build(&config, &ground, opened).await?;
    let (service, directory, identity) = (ground.service, ground.directory, ground.identity);
    if identity.founder && !identity.has_log {
        initialize(&core.raft, &config).await?;
    }
    // Before anybody is answered.
    let membership = latest(&core.raft)
        .await
        .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
    bind(&core.gate, membership.membership());
    directory.list(membership.membership());
    let started = core.run(&config, &directory, ground.phase);
    service.run(started.running.clone());
    tokio::spawn(note_log(
        started.running.raft.clone(),
        directory,
        identity,
        member_dir(&config),
    ));
    Ok(started)
}

/// What stands before there is a Raft: identity and the peers' listener.
struct Ground {
    me: Me,
    identity: Identity,
    gate: Gate,
    directory: Directory,
    service: PeerService,
    phase: Arc<watch::Sender<Phase>>,
    client_tls: Option<Arc<rustls::ClientConfig>>,
}

async fn prepare(config: &mut ReplicaConfig) -> Result<(Ground, Opened), StartError> {
    check_urls(config)?;
    make_data_dir(&config.data_dir)?;
    let client_tls = config.tls.as_ref().map(|tls| client_config(&tls.client));
    let name = config.name.clone();
    let inquiry = Inquiry::new(config, client_tls.clone())?;
    let Role { mut identity, is_new } = role(config, &inquiry).await?;
    if rebuild::stage(&member_dir(config))?.is_none() {
        condemned::refuse(&member_dir(config), identity.member_id)?;
    }
    if is_new {
        identity.save(&member_dir(config))?;
    }
    // Before anybody hears of it: after a power cut this member must come back as the same.
    sync_names(config)?;
    let me = Me {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        incarnation: identity.incarnation,
    };
    let (cluster, member) = (format!("{:x}", me.cluster_id), format!("{:x}", me.member_id));
    tracing::info!(cluster, member, name, is_new, "starting");

    // Members that bootstrap together ask one another, so the listener serves before anything else.
    let gate = Gate::new(me, Arc::new(KnownPeers::load(&member_dir(config))?));
    let directory = Directory::new(gate.clone(), !identity.is_admitted());
    directory.initialized.store(identity.has_log, Ordering::Release);
    let service = PeerService::new(gate.clone(), Receiver::new(snapshot_dir(config)));
    let phase = Arc::new(watch::Sender::new(Phase::Running));
    serve_peers(config, service.clone(), directory.clone(), phase.subscribe())?;

    if !identity.is_admitted() {
        admit(&inquiry, me, &mut identity, &member_dir(config)).await?;
    }
    let rebuild = Rebuild {
        config,
        me,
        inquiry: &inquiry,
        links: Links::new(gate.clone(), client_tls.clone(), config.host.clone()),
        service: &service,
        snapshot_dir: snapshot_dir(config),
    };
    rebuild.run().await?;
    let opened = block(|| open(config, &identity))?;
    // Only now that the directory is locked: a member that runs keeps its snapshots there. None is received before.
    clear_leftovers(&snapshot_dir(config))?;
    let ground = Ground {
        me,
        identity,
        gate,
        directory,
        service,
        phase,
        client_tls,
    };
    Ok((ground, opened))
}

/// Lets a founder take part, once all the others know it. A refused one leaves no trace: the operator is told to
/// start with an empty data directory.
async fn admit(
    inquiry: &Inquiry,
    me: Me,
    identity: &mut Identity,
    member_dir: &Path,
) -> Result<(), StartError> {
    if let Err(refused) = inquiry.introduce(me).await {
        Identity::forget(member_dir)?;
        return Err(refused);
    }
    identity.admitted = true;
    Ok(identity.save(member_dir)?)
}

fn snapshot_dir(config: &ReplicaConfig) -> PathBuf {
    config.data_dir.join("snap")
}

/// Raft, and what it stands on.
struct Core {
    me: Me,
    gate: Gate,
    store: Store,
    wal: Wal,
    /// Where the log ended when it was opened.
    had: Option<LogPosition>,
    raft: Raft,
    state_machine: StateMachine,
    links: Arc<Links>,
    waiters: Arc<Waiters>,
    lessor: Arc<Lessor>,
    counters: Arc<Counters>,
    compaction: Arc<Notify>,
    log_size: Arc<LogSize>,
}

impl Core {
    async fn build(config: &ReplicaConfig, ground: &Ground, opened: Opened) -> Result<Self, StartError> {
        let me = ground.me;
        let raft_config = raft_config(config, me.cluster_id)?;

        let Opened {
            wal,
            recovered,
            store,
            applier,
        } = opened;
        let had = match planted("committed-not-saved") {
            // A member that trusts in that index alone.
            true => recovered.committed.or(recovered.purged).or(Some((0, 0))),
            false => recovered.last,
        };
        let had = had.map(|(term, index)| LogPosition { term, index });
        let counters = Arc::new(Counters::default());
        let flushed = FlushedState::default();
        flushed.set(applier.flushed());
        let log = LogStore::new(wal.clone(), recovered, flushed.clone())?;
        let lessor = Arc::new(Lessor::default());
        let applied_term = applier.applied().map_or(0, |position| position.term);
        let waiters = Waiters::new(rand::random::<u64>().max(1), applied_term);
        let compaction = Arc::new(Notify::new());
        let log_size = LogSize::new(config.snapshot_bytes);
        let state_machine = StateMachine::new(Parts {
            applier,
            flushed,
            durable: log.durable.clone(),
            waiters: waiters.clone(),
            lessor: lessor.clone(),
            counters: counters.clone(),
            compaction: compaction.clone(),
            log_size: log_size.clone(),
            snapshot_dir: snapshot_dir(config),
        });
        let links = Arc::new(Links::new(
            ground.gate.clone(),
            ground.client_tls.clone(),
            config.host.clone(),
        ));
        let network = Network {
            known: ground.gate.known.clone(),
            links: links.clone(),
            counters: counters.clone(),
            store: store.clone(),
            snapshot_bytes_per_second: config.snapshot_bytes_per_second,
        };
        let raft = Raft::new(me.member_id, raft_config, network, log, state_machine.clone()).await;
        let raft = raft.map_err(|fatal| StartError::Raft(fatal.to_string()))?;
        state_machine.started();
        let gate = ground.gate.clone();
        Ok(Self {
            me,
            gate,
            store,
            wal,
            had,
            raft,
            state_machine,
            links,
            waiters,
            lessor,
            counters,
            compaction,
            log_size,
        })
    }

    /// Starts the tasks around Raft.
    fn run(self, config: &ReplicaConfig, directory: &Directory, phase: Arc<watch::Sender<Phase>>) -> Started {
        let me = self.me.member_id;
        let applied = self.state_machine.applied();
        let (failed_tx, failed) = watch::channel(None);
        let failed_tx = Arc::new(failed_tx);
        let leadership =
            self.follow_leadership(config.election_timeout, failed_tx.clone(), phase.subscribe());
        let (barrier_task, barrier) = BarrierTask::new(
            me,
            self.raft.clone(),
            self.links.clone(),
            leadership.clone(),
            applied.clone(),
            self.counters.clone(),
            config.request_timeout,
        );
        tokio::spawn(barrier_task.run());
        let (proposer, queue) = Proposer::new(
            me,
            self.raft.clone(),
            self.links.clone(),
            self.waiters.clone(),
            leadership.clone(),
            self.counters.clone(),
            limits(config),
        );
        tokio::spawn(proposer.run(phase.subscribe()));
        let membership = self.follow_membership(config, directory, leadership.clone());
        let keeper = Keeper {
            me,
            store: self.store.clone(),
            lessor: self.lessor.clone(),
            barrier: barrier.clone(),
            queue: queue.clone(),
            links: self.links.clone(),
            leadership: leadership.clone(),
            counters: self.counters.clone(),
            request_timeout: config.request_timeout,
        };
        tokio::spawn(keeper.clone().run());
        let compacted = self.compact_in_background(failed_tx);
        tokio::spawn(keep_bounded(self.raft.clone(), self.log_size.clone()));
        let gate = self.gate.clone();
        let condemned = Condemned::new(me, member_dir(config), move |reason| {
            gate.stop.send_replace(Some(reason));
        });
        let oversight = self.oversight(config, &queue, &leadership, &condemned);
        let scrubber = Scrubber::new(self.store.clone(), applied.clone(), self.counters.clone());
        tokio::spawn(Divergence::new(oversight.clone()).run());
        tokio::spawn(damaged::run(oversight.clone()));
        let scrubs = Scrubs {
            oversight,
            scrubber: scrubber.clone(),
            every: config.scrub_every,
        };
        tokio::spawn(scrubs.run());
        let (ready_tx, ready) = watch::channel(false);
        tokio::spawn(recover(applied.clone(), self.had, barrier.clone(), ready_tx));
        Started {
            me: self.me,
            running: Arc::new(Running {
                raft: self.raft,
                barrier,
                keeper,
                membership,
                store: self.store.clone(),
                scrubber,
                condemned,
            }),
            store: self.store,
            wal: self.wal,
            state_machine: self.state_machine,
            applied,
            waiters: self.waiters,
            queue,
            leadership,
            counters: self.counters,
            compacted,
            ready,
            failed,
            phase,
        }
    }

    fn follow_leadership(
        &self,
        election_timeout: Duration,
        failed: Arc<watch::Sender<Option<String>>>,
        phase: watch::Receiver<Phase>,
    ) -> watch::Receiver<Leadership> {
        let published = Arc::new(watch::Sender::new(Leadership::default()));
        let leadership = published.subscribe();
        let applied = self.state_machine.applied();
        let follow = leadership::follow(
            self.me.member_id,
            self.raft.clone(),
            applied,
            self.counters.clone(),
            published,
            election_timeout,
        );
        let waiters = self.waiters.clone();
        let raft_ended = async move {
            follow.await;
            waiters.close();
        };
        tokio::spawn(watch_failure(
            self.raft.clone(),
            self.gate.clone(),
            failed,
            phase,
            raft_ended,
        ));
        leadership
    }

    fn oversight(
        &self,
        config: &ReplicaConfig,
        queue: &ProposalQueue,
        leadership: &watch::Receiver<Leadership>,
        condemned: &Condemned,
    ) -> Oversight {
        Oversight {
            me: self.me.member_id,
            store: self.store.clone(),
            raft: self.raft.clone(),
            links: self.links.clone(),
            queue: queue.clone(),
            leadership: leadership.clone(),
            condemned: condemned.clone(),
            counters: self.counters.clone(),
            election_timeout: config.election_timeout,
        }
    }

    fn follow_membership(
        &self,
        config: &ReplicaConfig,
        directory: &Directory,
        leadership: watch::Receiver<Leadership>,
    ) -> Membership {
        let membership = Membership {
            me: self.me.member_id,
            raft: self.raft.clone(),
            links: self.links.clone(),
            leadership,
            election_timeout: config.election_timeout,
            changing: Arc::new(Mutex::new(())),
        };
        let directory = directory.clone();
        let known = move |membership: &_| directory.list(membership);
        tokio::spawn(membership.clone().follow(self.gate.clone(), known));
        let announcement = Announcement {
            name: config.name.clone(),
            client_urls: config.advertise_client_urls.clone(),
            incarnation: self.me.incarnation,
        };
        tokio::spawn(membership.clone().publish(self.gate.clone(), announcement));
        tokio::spawn(membership.clone().tend());
        membership
    }

    fn compact_in_background(&self, failed: Arc<watch::Sender<Option<String>>>) -> watch::Receiver<Revision> {
        let (done, compacted) = watch::channel(Revision(0));
        let compactor = Compactor {
            state_machine: self.state_machine.clone(),
            store: self.store.clone(),
            wake: self.compaction.clone(),
            done: Arc::new(done),
        };
        tokio::spawn(async move {
            let error = compactor.run().await;
            failed.send_replace(Some(format!("compaction: {error}")));
        });
        compacted
    }
}

fn limits(config: &ReplicaConfig) -> Limits {
    Limits {
        max_batch_bytes: config.max_batch_bytes,
        max_queued_commands: MAX_QUEUED_COMMANDS,
        max_queued_bytes: MAX_QUEUED_BYTES.max(2 * config.max_batch_bytes),
        request_timeout: config.request_timeout,
    }
}

fn serve_peers(
    config: &mut ReplicaConfig,
    service: PeerService,
    directory: Directory,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), StartError> {
    let tls = config.tls.as_ref().map(|tls| tls.server.clone());
    let listeners = config.host.listen(std::mem::take(&mut config.peer_listeners))?;
    let incoming = listener::accept(listeners, tls);
    tokio::spawn(async move {
        let stop = async move { drop(phase.wait_for(|phase| *phase == Phase::Stopping).await) };
        if let Err(error) = service.serve(directory, incoming, stop).await {
            tracing::error!(%error, "the peers' listener failed");
        }
    });
    Ok(())
}
