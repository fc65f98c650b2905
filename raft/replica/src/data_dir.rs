//! A member's data directory: who the member is by it, and what is opened from it.

use std::{
    fmt,
    fs::{DirBuilder, File, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use barque_store::{Applier, LogPosition, Store, StoreError};
use barque_wal::{Recovered, Wal};

use crate::{
    ReplicaConfig, StartError, codec,
    identity::{self, Identity},
    installing::Installing,
    known_peers::KnownPeers,
    peer::{discovery::Inquiry, link::Address},
    refusal::{self, REPLACE_UNKNOWN, Replace},
};

/// Makes the directory and those above it that are missing, for their owner alone.
pub fn make_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes the data directory when it is missing. As in etcd, one that others may look into is left as its owner wants
/// it, with a warning; what is made below it is private in either case.
pub fn make_data_dir(dir: &Path) -> io::Result<()> {
    make_private_dir(dir)?;
    if is_open_to_others(dir)? {
        tracing::warn!(dir = %dir.display(), "the data directory is open to others than its owner: make its mode 0700");
    }
    Ok(())
}

/// Keeps every other process out of the data directory, for as long as this is held. Before anything in it is read:
/// a second process would count as a start of the first.
pub fn lock(dir: &Path) -> Result<File, StartError> {
    let locked = File::open(dir)?;
    match locked.try_lock() {
        Ok(()) => Ok(locked),
        Err(TryLockError::WouldBlock) => {
            let text = format!("data directory {} is in use by another process", dir.display());
            Err(StartError::Identity(text))
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn is_open_to_others(dir: &Path) -> io::Result<bool> {
    Ok(dir.metadata()?.permissions().mode() & 0o077 != 0)
}

fn own_urls(config: &ReplicaConfig) -> Result<Vec<String>, StartError> {
    let own = config
        .initial_cluster
        .iter()
        .find(|member| member.name == config.name);
    own.map(|member| member.peer_urls.clone()).ok_or_else(|| {
        StartError::Config(format!(
            "couldn't find local name {:?} in the initial cluster configuration",
            config.name
        ))
    })
}

/// Who this member is: as its data directory says, or as it is about to become.
pub struct Role {
    pub identity: Identity,
    /// The data directory is empty.
    pub is_new: bool,
}

pub async fn role(config: &ReplicaConfig, inquiry: &Inquiry) -> Result<Role, StartError> {
    if let Some(identity) = Identity::load(&member_dir(config))? {
        // As in etcd, --initial-cluster and its kin decide nothing once there is data; but data of another
        // cluster is a mistake that must not go unnoticed.
        identity.check_is_of(config)?;
        return Ok(Role {
            identity,
            is_new: false,
        });
    }
    for dir in [config.data_dir.join("wal"), config.store.dir.clone()] {
        if std::fs::read_dir(&dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(StartError::Identity(format!(
                "{} is not empty, but {} is missing: this is not a whole data directory. Nothing was changed: put {} back \
                 as it was since the last start, {REPLACE_UNKNOWN}",
                dir.display(),
                member_dir(config).join("identity.json").display(),
                member_dir(config).display()
            )));
        }
    }
    let urls = own_urls(config)?;
    let (cluster_id, member_id) = match config.new_cluster {
        true => {
            let token = &config.initial_cluster_token;
            (
                identity::cluster_id(&config.initial_cluster, token),
                identity::member_id(&urls, token),
            )
        }
        false => inquiry.join(&urls).await?,
    };
    Ok(Role {
        identity: Identity::new(cluster_id, member_id, config),
        is_new: true,
    })
}

/// Counts this start, durably, and opens what the member remembers of its peers. Nobody has been spoken to yet.
pub fn begin_life(mut identity: Identity, member_dir: &Path) -> Result<(Identity, KnownPeers), StartError> {
    if let Some(reason) = identity.retired {
        return Err(StartError::Identity(reason));
    }
    make_private_dir(member_dir)?;
    let forgotten = |what: String| {
        let replace = Replace(identity.member_id);
        StartError::Identity(format!(
            "{what}; nothing was changed: put it back as it was since the last start; without what it remembers of the \
             others this member may count votes that must not count, {replace}"
        ))
    };
    let path = KnownPeers::path(member_dir);
    // New, or of a program that did not count its starts, and had no such file on a member that never met others.
    let is_first = identity.starts == 0;
    if is_first && !path.exists() {
        KnownPeers::create(member_dir)?;
    }
    let known = KnownPeers::load(member_dir, is_first).map_err(|error| forgotten(error.to_string()))?;
    let known = known.ok_or_else(|| forgotten(format!("{} is missing", path.display())))?;
    identity.count_start();
    identity.save(member_dir)?;
    Ok((identity, known))
}

pub fn member_dir(config: &ReplicaConfig) -> PathBuf {
    config.data_dir.join("member")
}

pub struct Opened {
    pub wal: Wal,
    pub recovered: Recovered,
    pub store: Store,
    pub applier: Applier,
}

/// The peer URLs can be reached as they are written.
pub fn check_urls(config: &ReplicaConfig) -> Result<(), StartError> {
    for url in config.initial_cluster.iter().flat_map(|member| &member.peer_urls) {
        let address = Address::parse(url).map_err(StartError::Config)?;
        if address.tls && config.tls.is_none() {
            let text = format!("peer URL {url:?} needs certificates for peers, and none are given");
            return Err(StartError::Config(text));
        }
    }
    Ok(())
}

/// Makes the names in the data directory, and its own, durable.
pub fn sync_names(config: &ReplicaConfig) -> io::Result<()> {
    let above = config.data_dir.parent().filter(|dir| !dir.as_os_str().is_empty());
    for dir in std::iter::once(config.data_dir.as_path()).chain(above) {
        std::fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

pub fn open(config: &ReplicaConfig, identity: &Identity) -> Result<Opened, StartError> {
    // The state first: it is locked, and so keeps a second process away from the log too.
    let (store, mut applier) = config
        .host
        .open_store(config.store.clone())
        .map_err(|error| state_refused(config, error))?;
    let (wal, recovered) = open_log(config, identity)?;
    let installing = Installing::new(&member_dir(config)).under_way()?;
    check_log_and_state(&recovered, applier.applied(), installing)
        .map_err(|misfit| does_not_fit(config, identity.member_id, misfit))?;
    // Only now is it known that this state is the log's.
    applier.clear_leftovers()?;
    Ok(Opened {
        wal,
        recovered,
        store,
        applier,
    })
}

/// Refuses a log that is damaged or gone.
pub fn open_log(config: &ReplicaConfig, identity: &Identity) -> Result<(Wal, Recovered), StartError> {
    let log_dir = config.data_dir.join("wal");
    make_private_dir(&log_dir)?;
    let (wal, recovered) = config
        .host
        .open_log(&log_dir, config.log.clone())
        .map_err(|error| log_refused(&log_dir, identity.member_id, error))?;
    sync_names(config)?;
    let empty = recovered.vote.is_none() && recovered.last.is_none() && recovered.purged.is_none();
    if identity.has_log && empty {
        return Err(StartError::Identity(format!(
            "the log of member {:x} is gone: {}",
            identity.member_id,
            refusal::wiped(identity.member_id)
        )));
    }
    Ok((wal, recovered))
}

/// Refuses a log that has lost what this member promised, before the state that shows it gives way to another's. A state
/// that cannot be opened shows nothing.
pub fn check_log(config: &ReplicaConfig, identity: &Identity) -> Result<(), StartError> {
    let (wal, recovered) = open_log(config, identity)?;
    wal.close();
    if !config.store.dir.exists() {
        return Ok(());
    }
    let Ok((_store, applier)) = config.host.open_store(config.store.clone()) else {
        return Ok(());
    };
    let installing = Installing::new(&member_dir(config)).under_way()?;
    match check_log_and_state(&recovered, applier.applied(), installing) {
        Err(misfit @ Misfit::Log(_)) => Err(does_not_fit(config, identity.member_id, misfit)),
        Err(Misfit::State(_)) | Ok(()) => Ok(()),
    }
}

/// The state is derived: what this member has promised lies in its log and beside its identity, and is not lost with it.
fn state_refused(config: &ReplicaConfig, error: StoreError) -> StartError {
    // A disk without room is no damage, and another state would need room as well.
    let is_refused = (error.is_damage() || matches!(error, StoreError::DataDir(_)))
        && !error.to_string().contains(NO_ROOM);
    if !is_refused || error.is_in_use() {
        return error.into();
    }
    StartError::Identity(format!("{error}; {}", TakeAnothers(config)))
}

/// As the operating system, and RocksDB after it, says that a disk is full.
const NO_ROOM: &str = "No space left on device";

/// An error of the operating system passes, or is no damage.
fn log_refused(log_dir: &Path, member_id: u64, error: io::Error) -> StartError {
    if error.kind() != io::ErrorKind::InvalidData {
        return error.into();
    }
    StartError::Identity(format!(
        "{error}. Nothing was changed in {}: if what is damaged can be given back as it was, do; else this member has lost \
         what it promised, {}",
        log_dir.display(),
        Replace(member_id)
    ))
}

/// What is done about a member whose log is whole, and its state not.
struct TakeAnothers<'a>(&'a ReplicaConfig);

impl fmt::Display for TakeAnothers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, data_dir) = (self.0.store.dir.display(), self.0.data_dir.display());
        write!(
            f,
            "if {state} cannot be given back as it was, run `barque rebuild --data-dir {data_dir}` and start it again, and it \
             takes the state of another member"
        )
    }
}

/// Why log and state do not belong together.
enum Misfit {
    /// The log is whole, but the state has not all that went from it.
    State(String),
    /// The log has lost what this member promised.
    Log(String),
}

fn does_not_fit(config: &ReplicaConfig, member_id: u64, misfit: Misfit) -> StartError {
    let (log, state) = (config.data_dir.join("wal"), config.store.dir.display());
    let unchanged = format!("Nothing was changed in {} and {state}", log.display());
    StartError::Identity(match misfit {
        Misfit::State(what) => format!("{what}. {unchanged}: {}", TakeAnothers(config)),
        Misfit::Log(what) => format!(
            "{what}. {unchanged}: if one of them can be given back as it was, do; else this member has lost what it promised, \
             {}",
            Replace(member_id)
        ),
    })
}

/// Log and state belong together, and the log has all that was applied. `installing`: what a snapshot was about to make
/// of the state.
///
/// ```text
/// log (10, 30], vote of term 4   state at 20, term 4    fits: entries 21 to 30 are applied again
/// log (25, 30]                   state at 20            entries 21 to 25 are nowhere
/// log (10, 30]                   state at 62            the log has lost 31 to 62: it was acknowledged, and so was more
/// log (10, 30]                   state at 62, installing 62   a snapshot came, and the log did not hear of it yet
/// vote of term 3                 state of term 4        the log has forgotten votes
/// ```
fn check_log_and_state(
    recovered: &Recovered,
    applied: Option<LogPosition>,
    installing: Option<LogPosition>,
) -> Result<(), Misfit> {
    let index = |at: Option<u64>| at.map_or("nothing".into(), |index| index.to_string());
    let applied_index = applied.map(|position| position.index);
    let purged = recovered.purged.map(|(_, index)| index);
    if purged > applied_index {
        return Err(Misfit::State(format!(
            "the log begins after index {}, the state ends at {}: the state is not the one of this log",
            index(purged),
            index(applied_index)
        )));
    }
    let end = recovered.last.map(|(_, index)| index).max(purged);
    if applied_index > end && applied != installing {
        return Err(Misfit::Log(format!(
            "the log ends at index {}, the state is at {}: the log has lost its end",
            index(end),
            index(applied_index)
        )));
    }
    let voted = recovered.vote.clone().map(codec::decode_vote).transpose();
    let voted = voted.map_err(|error| Misfit::Log(error.to_string()))?;
    let (voted, term) = (
        voted.map_or(0, |vote| vote.leader_id.term),
        applied.map_or(0, |at| at.term),
    );
    if term > voted {
        return Err(Misfit::Log(format!(
            "the log's vote is of term {voted}, the state of term {term}: the log has lost a vote"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;

    fn mode(dir: &Path) -> u32 {
        dir.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_data_directory_is_made_for_its_owner_alone() {
        let above = tempfile::tempdir().unwrap();
        let dir = above.path().join("a").join("b");
        make_data_dir(&dir).unwrap();
        assert_eq!((mode(&dir), is_open_to_others(&dir).unwrap()), (0o700, false));
        // Again, as at the next start.
        make_data_dir(&dir).unwrap();
    }

    #[test]
    fn a_state_ahead_of_its_log_is_refused_unless_a_snapshot_came() {
        let at = |term, index| Some(LogPosition { term, index });
        let vote = codec::encode_vote(&openraft::Vote::new(4, 1));
        // (purged, last), state, installing, expected.
        let cases = [
            ((Some(10), Some(30)), at(4, 20), None, ""),
            ((Some(10), Some(30)), at(4, 30), None, ""),
            ((Some(25), Some(30)), at(4, 20), None, "begins after index 25"),
            (
                (Some(25), None),
                None,
                None,
                "begins after index 25, the state ends at nothing",
            ),
            (
                (Some(10), Some(30)),
                at(4, 62),
                None,
                "ends at index 30, the state is at 62",
            ),
            (
                (Some(10), Some(30)),
                at(4, 62),
                at(4, 61),
                "ends at index 30, the state is at 62",
            ),
            ((Some(10), Some(30)), at(4, 62), at(4, 62), ""),
            ((None, None), at(4, 62), at(4, 62), ""),
            ((None, None), at(4, 0), None, "ends at index nothing"),
            ((Some(20), None), at(4, 20), None, ""),
            ((None, None), None, None, ""),
            (
                (Some(10), Some(30)),
                at(5, 20),
                None,
                "vote is of term 4, the state of term 5",
            ),
        ];
        for ((purged, last), state, installing, expected) in cases {
            let recovered = Recovered {
                purged: purged.map(|index| (1, index)),
                last: last.map(|index| (4, index)),
                vote: Some(vote.clone()),
                ..Recovered::default()
            };
            match check_log_and_state(&recovered, state, installing) {
                Ok(()) => assert_eq!(expected, "", "{purged:?} {last:?} {state:?}"),
                Err(Misfit::State(text) | Misfit::Log(text)) => assert!(
                    !expected.is_empty() && text.contains(expected),
                    "{text}, not {expected}"
                ),
            }
        }
    }

    #[test]
    fn a_data_directory_is_one_process_own() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let refused = lock(dir.path()).unwrap_err().to_string();
        assert!(refused.ends_with("is in use by another process"), "{refused}");
        drop(held);
        lock(dir.path()).unwrap();
    }

    #[test]
    fn one_that_is_there_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        for (given, open) in [(0o755, true), (0o710, true), (0o500, false)] {
            fs::set_permissions(dir.path(), Permissions::from_mode(given)).unwrap();
            make_data_dir(dir.path()).unwrap();
            assert_eq!(mode(dir.path()), given);
            assert_eq!(is_open_to_others(dir.path()).unwrap(), open, "{given:o}");
        }
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    }
}
