//! A member's data directory: who the member is by it, and what is opened from it.

use std::{
    fs::DirBuilder,
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use barque_store::{Applier, Store};
use barque_wal::{Recovered, Wal};

use crate::{
    ReplicaConfig, StartError,
    identity::{self, Identity},
    peer::{discovery::Inquiry, link::Address},
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
                "{} is not empty, but {} is missing: this is not a whole data directory",
                dir.display(),
                member_dir(config).join("identity.json").display()
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
    let (store, mut applier) = config.host.open_store(config.store.clone())?;
    let log_dir = config.data_dir.join("wal");
    make_private_dir(&log_dir)?;
    let (wal, recovered) = config.host.open_log(&log_dir, config.log.clone())?;
    sync_names(config)?;
    let empty = recovered.vote.is_none() && recovered.last.is_none() && recovered.purged.is_none();
    if identity.has_log && empty {
        return Err(StartError::Identity(format!(
            "the log of member {:x} is gone: {}",
            identity.member_id,
            identity::already_bootstrapped(identity.member_id)
        )));
    }
    let purged = recovered.purged.map(|(_, index)| index);
    let applied = applier.applied().map(|position| position.index);
    if purged > applied {
        return Err(StartError::Identity(format!(
            "the log begins after index {}, the state ends at {}: the state directory {} is not the one of this log",
            purged.unwrap_or(0),
            applied.map_or("nothing".into(), |index| index.to_string()),
            config.store.dir.display()
        )));
    }
    // Only now is it known that this state is the log's.
    applier.clear_leftovers()?;
    Ok(Opened {
        wal,
        recovered,
        store,
        applier,
    })
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
