//! The members of one simulated cluster, and the way of its clients to them.

use std::{io, sync::Arc, time::Duration};

use barque_checks::history::MemberState;
use barque_store::Store;
use barque_traffic::{Collector, Recorder, Target};
use hyper_util::rt::TokioIo;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{
    host::CLIENT_PORT,
    interpose::{self, now_us},
    lives::Lives,
    member::{Member, Premises, Settings},
    network::{FIRST_CLIENT, HostId, Network},
    process::{Processes, Slot},
};

pub struct World {
    pub members: Vec<Member>,
    pub network: Network,
    pub rng: StdRng,
    pub settings: Settings,
    pub recorder: Recorder,
    pub collector: Collector,
    pub lives: Lives,
    /// Members that were added and never started.
    pub newcomers: HostId,
    _dir: TempDir,
}

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often members have hardly any room.
const SMALL_QUOTA: f64 = 0.15;

/// Of a million, that a clock may gain or lose: ten times what quartz does.
const DRIFT: i64 = 1000;

/// A clock as machines have them: a little fast or slow, and set wrong.
fn set_clock(slot: Slot, rng: &mut StdRng) {
    interpose::set_clock_rate(slot, rng.random_range(-DRIFT..=DRIFT));
    let wrong_by_ms: i64 = [1, 100, 10_000, 86_400_000][rng.random_range(0..4)];
    interpose::jump_wall_clock(slot, rng.random_range(-wrong_by_ms..=wrong_by_ms) * 1_000_000);
}

impl World {
    /// Sizes are drawn small, so that logs are purged, segments rotated and snapshots sent all the time.
    pub fn new(seed: u64, processes: Processes) -> io::Result<World> {
        let mut rng = StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir()?;
        let network = Network::new(rng.random());
        let settings = Settings {
            snapshot_entries: rng.random_range(30..400),
            segment_bytes: [16u64, 32, 64][rng.random_range(0..3)] << 10,
            ring_bytes: [1usize, 16, 1024][rng.random_range(0..3)] << 10,
            checkpoint_every: Duration::from_secs([1, 4, 300][rng.random_range(0..3)]),
            progress_every: Duration::from_millis(rng.random_range(200..3000)),
            quota_bytes: if rng.random_bool(SMALL_QUOTA) {
                rng.random_range(64..256) << 10
            } else {
                0
            },
        };
        let count = if rng.random_bool(0.85) { 3 } else { 5 };
        let cluster: Vec<HostId> = (0..count).collect();
        let (recorder, lives) = (Recorder::default(), Lives::default());
        let premises = Premises {
            network: network.clone(),
            processes,
            recorder: recorder.clone(),
            lives: lives.clone(),
            root: dir.path().to_owned(),
        };
        let member = |id: &HostId| {
            let (premises, settings) = (premises.clone(), settings.clone());
            let member = Member::new(*id, rng.random(), premises, settings, cluster.clone());
            set_clock(member.slot(), &mut rng);
            member
        };
        let members = cluster.iter().map(member).collect();
        Ok(World {
            members,
            network,
            rng,
            settings,
            recorder,
            collector: Collector::default(),
            lives,
            newcomers: 0,
            _dir: dir,
        })
    }

    pub fn ids(&self) -> Vec<HostId> {
        self.members.iter().map(|member| member.id).collect()
    }

    pub fn target(&self) -> Target {
        let (network, lives) = (self.network.clone(), self.lives.clone());
        Target {
            members: self.ids(),
            dial: Arc::new(move |client, member| dial(network.clone(), client, member)),
            now_us: Arc::new(now_us),
            // What a member has served it never takes back, however often it restarts, unless its disk does.
            life: Arc::new(move |member| lives.losses(member)),
        }
    }

    pub fn start_all(&mut self) -> io::Result<()> {
        self.members.iter_mut().try_for_each(Member::start)
    }

    /// Starts the members again that stopped by themselves.
    pub fn supervise(&mut self) -> io::Result<()> {
        for member in self.members.iter_mut().filter(|member| member.has_stopped()) {
            member.crash(false);
            member.start()?;
        }
        Ok(())
    }

    /// Nothing is done to the cluster for a while. A disk that failed may stop a member as late as that.
    pub async fn rest(&mut self, time: Duration) -> io::Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.supervise()?;
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Waits until every member serves, for a minute at most.
    pub async fn all_serve(&mut self) -> io::Result<bool> {
        for _ in 0..600 {
            self.supervise()?;
            if self.members.iter().all(Member::serves) {
                return Ok(true);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }

    /// The member that leads in the highest term, as far as members say.
    pub fn leader(&self) -> Option<usize> {
        let leads = |(at, member): (usize, &Member)| {
            let now = *member.replica()?.leadership().borrow();
            now.is_self.then_some((now.term, at))
        };
        self.members
            .iter()
            .enumerate()
            .filter_map(leads)
            .max()
            .map(|(_, at)| at)
    }

    /// The members that serve.
    pub fn serving(&self) -> Vec<HostId> {
        let serving = self.members.iter().filter(|member| member.serves());
        serving.map(|member| member.id).collect()
    }

    /// How many tasks each member has.
    pub fn tasks(&self) -> Vec<usize> {
        self.members.iter().map(Member::tasks).collect()
    }

    pub fn states(&self) -> Vec<MemberState> {
        let state = |member: &Member| {
            let replica = member.replica()?;
            let head = replica.store().head();
            let (at, hash) = replica.store().state_hash();
            let hash = hash[..8]
                .iter()
                .fold(0u64, |hash, byte| hash << 8 | u64::from(*byte));
            Some(MemberState {
                member: member.id,
                revision: head.revision.0,
                compact_revision: head.compact_revision.0,
                applied: at.index,
                hash,
                // Leases change the state without a revision, so the log position is what the hash stands for.
                hash_revision: at.index as i64,
            })
        };
        self.members.iter().filter_map(state).collect()
    }

    pub fn stores(&self) -> Vec<(HostId, Store)> {
        let store = |member: &Member| Some((member.id, member.replica()?.store().clone()));
        self.members.iter().filter_map(store).collect()
    }

    /// Waits until all members have applied the same, for a minute at most.
    pub async fn settle(&mut self) -> io::Result<bool> {
        for _ in 0..600 {
            self.supervise()?;
            let states = self.states();
            let same = |a: &MemberState, b: &MemberState| a.applied == b.applied && a.revision == b.revision;
            if states.len() == self.members.len() && states.windows(2).all(|pair| same(&pair[0], &pair[1])) {
                return Ok(true);
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(false)
    }
}

fn dial(network: Network, client: u32, member: u32) -> Channel {
    let connect = tower::service_fn(move |_: Uri| {
        let network = network.clone();
        async move {
            let end = network
                .connect(FIRST_CLIENT + client, member, CLIENT_PORT)
                .await?;
            Ok::<_, io::Error>(TokioIo::new(end))
        }
    });
    Endpoint::from_static("http://member")
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(connect)
}
