//! From a data directory to a running member: identity, log, state, Raft, tasks.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use barque_entrance::Entrance;
use barque_store::{LogPosition, Revision, Store};
use barque_wal::Wal;
use tokio::sync::{Mutex, Notify, watch};

use crate::{
    Leadership, ReplicaConfig, StartError,
    applied::{Applied, FlushedState},
    barrier::BarrierTask,
    blocking::block,
    compactor::Compactor,
    data_dir::{
        Opened, Role, begin_life, check_urls, lock, make_data_dir, member_dir, open, role, sync_names,
    },
    identity::{Identity, KeptIdentity},
    installing::Installing,
    keeper::Keeper,
    leadership,
    lessor::Lessor,
    lifecycle::{Phase, founders, initialize, note_log, recover, retire, watch_failure},
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
        acknowledged::Acknowledged,
        discovery::{Directory, Inquiry},
        introduction::introduce,
        link::{Dialing, Links, client_config},
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
    tasks::Tasks,
    types::{Me, Raft, Start},
    waiters::Waiters,
};

/// How long each of the other members is waited for at a start. One that is down refuses at once; one that cannot be
/// reached, or is starting itself, hears of this start later.
const INTRODUCTION_PATIENCE: Duration = Duration::from_millis(500);
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
    pub tasks: Tasks,
    /// Moved on by the shutdown.
    pub phase: Arc<watch::Sender<Phase>>,
    pub entrance: Entrance,
}

/// Runs on the member's own runtime.
pub async fn start(mut config: ReplicaConfig) -> Result<Started, StartError> {
    let (ground, opened) = prepare(&mut config).await?;
    let core = Core::build(&config, &ground, opened).await?;
    let Ground {
        identity,
        directory,
        service,
        phase,
        tasks,
        failed,
        locked,
        entrance,
        ..
    } = ground;
    if identity.get().founder && !identity.get().has_log {
        initialize(&core.raft, &config).await?;
    }
    // Before anybody is answered.
    let membership = latest(&core.raft)
        .await
        .map_err(|fatal| StartError::Raft(fatal.to_string()))?;
    bind(&core.gate, membership.membership());
    directory.list(membership.membership());
    let (links, me) = (core.links.clone(), core.me.member_id);
    introduce(&links, me, membership.membership(), INTRODUCTION_PATIENCE).await;
    if let Some(stop) = core.gate.stopping().borrow().clone() {
        retire(&identity, &stop);
        return Err(StartError::Identity(stop.reason));
    }
    let started = core.run(
        &config,
        &directory,
        phase,
        identity.clone(),
        (tasks.clone(), failed),
        entrance,
    );
    service.run(started.running.clone());
    let noted = note_log(started.running.raft.clone(), directory, identity);
    tasks.spawn_fallible("that notes the log", noted);
    started.running.keep_locked(locked);
    Ok(started)
}

/// What stands before there is a Raft: identity and the peers' listener.
struct Ground {
    me: Me,
    identity: KeptIdentity,
    gate: Gate,
    directory: Directory,
    service: PeerService,
    phase: Arc<watch::Sender<Phase>>,
    tasks: Tasks,
    failed: watch::Receiver<Option<String>>,
    /// The data directory.
    locked: File,
    entrance: Entrance,
    dialing: Dialing,
}

async fn prepare(config: &mut ReplicaConfig) -> Result<(Ground, Opened), StartError> {
    check_urls(config)?;
    make_data_dir(&config.data_dir)?;
    let locked = lock(&config.data_dir)?;
    let dialing = Dialing {
        host: config.host.clone(),
        tls: config.tls.as_ref().map(|tls| client_config(&tls.client)),
        timeout: listener::patience(config.election_timeout),
    };
    let name = config.name.clone();
    let inquiry = Inquiry::new(config, &dialing)?;
    let Role { identity, is_new } = role(config, &inquiry).await?;
    if rebuild::stage(&member_dir(config))?.is_none() {
        condemned::refuse(&member_dir(config), identity.member_id)?;
    }
    let (identity, known) = begin_life(identity, &member_dir(config))?;
    // Before anybody hears of it: after a power cut this member must come back as the same.
    sync_names(config)?;
    let me = me(&identity);
    let (cluster, member) = (format!("{:x}", me.cluster_id), format!("{:x}", me.member_id));
    let start = me.start.number;
    tracing::info!(cluster, member, name, start, is_new, "starting");

    // Members that bootstrap together ask one another, so the listener serves before anything else.
    known.expect(founders(config).into_keys());
    let (tasks, failed) = Tasks::new();
    let gate = Gate::new(me, Arc::new(known)).with_past(&identity.lives);
    let directory = Directory::new(gate.clone(), !identity.is_admitted());
    directory.initialized.store(identity.has_log, Ordering::Release);
    let service = PeerService::new(gate.clone(), Receiver::new(snapshot_dir(config)));
    let phase = Arc::new(watch::Sender::new(Phase::Running));
    let entrance = listener::entrance(config.election_timeout);
    serve_peers(
        config,
        service.clone(),
        directory.clone(),
        &tasks,
        &entrance,
        phase.subscribe(),
    )?;

    let identity = KeptIdentity::new(identity, member_dir(config));
    if !identity.get().is_admitted() {
        // Who asks meanwhile may be one of them, and must not be taken for another.
        let founders = founders(config);
        directory
            .holders
            .list(founders.iter().map(|(id, node)| (*id, node)));
        admit(&inquiry, me, &identity, &member_dir(config)).await?;
    }
    let rebuild = Rebuild {
        config,
        me,
        identity: identity.get(),
        inquiry: &inquiry,
        links: Links::new(gate.clone(), directory.holders.clone(), dialing.clone()),
        service: &service,
        snapshot_dir: snapshot_dir(config),
    };
    rebuild.run().await?;
    let opened = block(|| open(config, &identity.get()))?;
    // Only now that the directory is locked: a member that runs keeps its snapshots there. None is received before.
    clear_leftovers(&snapshot_dir(config))?;
    let ground = Ground {
        me,
        identity,
        gate,
        directory,
        service,
        phase,
        tasks,
        failed,
        locked,
        entrance,
        dialing,
    };
    Ok((ground, opened))
}

fn me(identity: &Identity) -> Me {
    Me {
        cluster_id: identity.cluster_id,
        member_id: identity.member_id,
        incarnation: identity.incarnation,
        start: identity.life().unwrap_or(Start { number: 0, life: 0 }),
    }
}

/// Lets a founder take part, once all the others know it. A refused one leaves no trace: the operator is told to
/// start with an empty data directory.
async fn admit(
    inquiry: &Inquiry,
    me: Me,
    identity: &KeptIdentity,
    member_dir: &Path,
) -> Result<(), StartError> {
    if let Err(refused) = inquiry.introduce(me).await {
        Identity::forget(member_dir)?;
        return Err(refused);
    }
    Ok(identity.change(|identity| identity.admitted = true)?)
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
    log: LogStore,
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
        let applied = Arc::new(Applied::new(applier.applied()));
        let installing = Installing::new(&member_dir(config));
        let log = LogStore::new(
            wal.clone(),
            recovered,
            flushed.clone(),
            applied.clone(),
            installing.clone(),
        )?;
        let lessor = Arc::new(Lessor::default());
        let applied_term = applier.applied().map_or(0, |position| position.term);
        let waiters = Waiters::new(rand::random::<u64>().max(1), applied_term);
        let compaction = Arc::new(Notify::new());
        let log_size = LogSize::new(config.snapshot_bytes);
        let state_machine = StateMachine::new(Parts {
            applier,
            flushed,
            durable: log.durable.clone(),
            applied,
            waiters: waiters.clone(),
            lessor: lessor.clone(),
            counters: counters.clone(),
            compaction: compaction.clone(),
            log_size: log_size.clone(),
            snapshot_dir: snapshot_dir(config),
            installing,
        });
        let links = Arc::new(Links::new(
            ground.gate.clone(),
            ground.directory.holders.clone(),
            ground.dialing.clone(),
        ));
        let network = Network {
            gate: ground.gate.clone(),
            acknowledged: Acknowledged::default(),
            links: links.clone(),
            counters: counters.clone(),
            store: store.clone(),
            snapshot_bytes_per_second: config.snapshot_bytes_per_second,
        };
        let raft = Raft::new(
            me.member_id,
            raft_config,
            network,
            log.clone(),
            state_machine.clone(),
        )
        .await;
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
            log,
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
    fn run(
        self,
        config: &ReplicaConfig,
        directory: &Directory,
        phase: Arc<watch::Sender<Phase>>,
        identity: KeptIdentity,
        (tasks, failed): (Tasks, watch::Receiver<Option<String>>),
        entrance: Entrance,
    ) -> Started {
        let me = self.me.member_id;
        let applied = self.state_machine.applied();
        let leadership = self.follow_leadership(config.election_timeout, identity, &tasks, phase.subscribe());
        let (barrier_task, barrier) = BarrierTask::new(
            me,
            self.raft.clone(),
            self.links.clone(),
            leadership.clone(),
            applied.clone(),
            self.counters.clone(),
            config.request_timeout,
        );
        tasks.spawn("of read barriers", barrier_task.run());
        let (proposer, queue) = Proposer::new(
            me,
            self.raft.clone(),
            self.links.clone(),
            self.waiters.clone(),
            leadership.clone(),
            self.counters.clone(),
            limits(config),
        );
        tasks.spawn("of proposals", proposer.run(phase.subscribe()));
        let membership = self.follow_membership(config, directory, leadership.clone(), &tasks);
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
            checkpoint_every: config.lease_checkpoint_interval,
        };
        tasks.spawn_fallible("of leases", keeper.clone().run());
        let compacted = self.compact_in_background(&tasks);
        tasks.spawn(
            "that bounds the log",
            keep_bounded(self.raft.clone(), self.log_size.clone()),
        );
        let gate = self.gate.clone();
        let condemned = Condemned::new(me, member_dir(config), move |reason| {
            gate.stop(reason);
        });
        let oversight = self.oversight(config, &queue, &leadership, &condemned);
        let scrubber = Scrubber::new(self.store.clone(), applied.clone(), self.counters.clone());
        tasks.spawn("that compares members", Divergence::new(oversight.clone()).run());
        tasks.spawn("that looks for damage", damaged::run(oversight.clone()));
        let scrubs = Scrubs {
            oversight,
            scrubber: scrubber.clone(),
            every: config.scrub_every,
        };
        tasks.spawn("of scrubs", scrubs.run());
        let (ready_tx, ready) = watch::channel(false);
        let recovered = recover(applied.clone(), self.had, barrier.clone(), ready_tx);
        tasks.spawn("of recovery", recovered);
        Started {
            me: self.me,
            running: Arc::new(Running {
                raft: self.raft,
                log: self.log,
                barrier,
                keeper,
                membership,
                store: self.store.clone(),
                scrubber,
                condemned,
                locked: OnceLock::new(),
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
            tasks,
            phase,
            entrance,
        }
    }

    fn follow_leadership(
        &self,
        election_timeout: Duration,
        identity: KeptIdentity,
        tasks: &Tasks,
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
        let fate = watch_failure(
            self.raft.clone(),
            self.gate.clone(),
            identity,
            tasks.clone(),
            phase,
            raft_ended,
        );
        tasks.spawn("of failures", fate);
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
        tasks: &Tasks,
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
        let following = membership.clone().follow(self.gate.clone(), tasks.clone(), known);
        tasks.spawn_fallible("of the membership", following);
        let announcement = Announcement {
            name: config.name.clone(),
            client_urls: config.advertise_client_urls.clone(),
            incarnation: self.me.incarnation,
        };
        let publishing = membership.clone().publish(self.gate.clone(), announcement);
        tasks.spawn("that publishes this member", publishing);
        tasks.spawn("that tends the membership", membership.clone().tend());
        membership
    }

    fn compact_in_background(&self, tasks: &Tasks) -> watch::Receiver<Revision> {
        let (done, compacted) = watch::channel(Revision(0));
        let compactor = Compactor {
            state_machine: self.state_machine.clone(),
            store: self.store.clone(),
            wake: self.compaction.clone(),
            done: Arc::new(done),
        };
        tasks.spawn_fallible(
            "compaction",
            async move { Err(compactor.run().await.to_string()) },
        );
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
    tasks: &Tasks,
    entrance: &Entrance,
    mut phase: watch::Receiver<Phase>,
) -> Result<(), StartError> {
    let tls = config.tls.as_ref().map(|tls| tls.server.clone());
    let listeners = config.host.listen(std::mem::take(&mut config.peer_listeners))?;
    let incoming = listener::accept(listeners, tls, entrance, tasks);
    tasks.spawn_fallible("the peers' listener", async move {
        let stop = async move { drop(phase.wait_for(|phase| *phase == Phase::Stopping).await) };
        let served = service.serve(directory, incoming, stop).await;
        served.map_err(|error| error.to_string())
    });
    Ok(())
}
