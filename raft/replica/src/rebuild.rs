//! A member whose state is damaged or wrong gets the state of another one, and stays who it is.
//!
//! The state is derived: what a member has promised lies in its log and its vote, and both stay. So it is safe to put
//! the state aside and to take another member's in its place, as if its leader had sent a snapshot; the leader itself
//! would not, as the log has all that it asks for. The operator asks for it with [`ask_for`]; it is done at the next
//! start, before there is a Raft, and begins again after a crash at any point:
//!
//! 1. `member/REBUILD` says "wanted": the log must have all that the state shows it to have had, as nobody could tell
//!    afterwards. `state/` is renamed to `state.damaged-N`, and kept.
//! 2. It says "moved": another member's state is received and installed, and the log is made to begin after it.
//! 3. It is removed, and so is what says that the member must not start.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use barque_proto::peer as pb;
use barque_store::{Applier, LogPosition};
use barque_wal::Wal;
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tonic::Status;

use crate::{
    ReplicaConfig, StartError,
    blocking::block,
    codec,
    data_dir::{check_log, member_dir, open_log},
    identity::Identity,
    oversight::condemned,
    peer::{
        discovery::Inquiry,
        link::{Lane, Links},
        server::PeerService,
    },
    snapshot::{SnapshotDir, clear_leftovers},
    types::{Me, Node, Snapshot, Vote},
};

const FILE: &str = "REBUILD";
const WANTED: &str = "wanted";
const MOVED: &str = "moved";

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Wanted,
    /// The state was put aside.
    Moved,
}

/// Between rounds in which no other member could send its state.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Has the member in this data directory take another member's state at its next start.
pub fn ask_for(data_dir: &Path) -> io::Result<()> {
    let member_dir = data_dir.join("member");
    if !member_dir.join("identity.json").is_file() {
        let text = format!("{} is no member's data directory", data_dir.display());
        return Err(io::Error::other(text));
    }
    match stage(&member_dir) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => note(&member_dir, Stage::Wanted),
        // However far it was: what came in the state's place is put aside as well.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => note(&member_dir, Stage::Wanted),
        Err(error) => Err(error),
    }
}

/// `None`: no rebuild is asked for. A note that says anything else is damaged: taken for "moved" it would vouch for the
/// state that is to go.
pub fn stage(member_dir: &Path) -> io::Result<Option<Stage>> {
    let path = member_dir.join(FILE);
    let found = match fs::read(&path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(io::Error::new(
                error.kind(),
                format!("{}: {error}", path.display()),
            ));
        }
    };
    match String::from_utf8_lossy(&found).trim_end() {
        WANTED => Ok(Some(Stage::Wanted)),
        MOVED => Ok(Some(Stage::Moved)),
        _ => {
            let data_dir = member_dir.parent().unwrap_or(member_dir).display();
            let text = format!(
                "{}: damaged: it says neither \"{WANTED}\" nor \"{MOVED}\"; nothing was changed: run `barque rebuild \
                 --data-dir {data_dir}` again and start the member",
                path.display()
            );
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }
}

fn note(member_dir: &Path, stage: Stage) -> io::Result<()> {
    let stage = match stage {
        Stage::Wanted => WANTED,
        Stage::Moved => MOVED,
    };
    let (path, new) = (member_dir.join(FILE), member_dir.join(FILE).with_extension("new"));
    let mut file = File::create(&new)?;
    writeln!(file, "{stage}")?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(member_dir)?.sync_all()
}

/// What it takes: who this member is, and its ways to the others.
pub struct Rebuild<'a> {
    pub config: &'a ReplicaConfig,
    pub me: Me,
    pub identity: Identity,
    pub inquiry: &'a Inquiry,
    pub links: Links,
    pub service: &'a PeerService,
    pub snapshot_dir: PathBuf,
}

impl Rebuild<'_> {
    /// Returns once the state is another member's; however long that takes.
    pub async fn run(&self) -> Result<(), StartError> {
        let member_dir = member_dir(self.config);
        let Some(stage) = stage(&member_dir)? else {
            return Ok(());
        };
        if stage == Stage::Wanted {
            self.check_others(&member_dir)?;
            block(|| check_log(self.config, &self.identity))?;
            block(|| self.put_state_aside())?;
            note(&member_dir, Stage::Moved)?;
        }
        let (store, mut applier) = self.config.host.open_store(self.config.store.clone())?;
        let (wal, recovered) = open_log(self.config, &self.identity)?;
        clear_leftovers(&self.snapshot_dir)?;
        if applier.applied().is_none() {
            let least = recovered.purged.map_or(0, |(_, index)| index);
            self.fetch(&mut applier, &wal, least).await?;
        }
        if let Some(applied) = applier.applied() {
            begin_log_after(&wal, applied).await?;
        }
        block(|| wal.close());
        drop((store, applier));
        condemned::forget(&member_dir)?;
        fs::remove_file(member_dir.join(FILE))?;
        File::open(&member_dir)?.sync_all()?;
        tracing::info!("the state of this member is another member's now");
        Ok(())
    }

    /// A member alone would put its state aside and wait for ever.
    fn check_others(&self, member_dir: &Path) -> Result<(), StartError> {
        match self.inquiry.has_others() {
            true => Ok(()),
            false => Err(StartError::Identity(format!(
                "this member is to be rebuilt, but --initial-cluster names no other one that could send its state. Nothing \
                 was changed: name the others there, or remove {} if there are none",
                member_dir.join(FILE).display()
            ))),
        }
    }

    /// Kept: it is evidence, and it may be all that there is.
    fn put_state_aside(&self) -> io::Result<()> {
        let state = &self.config.store.dir;
        if !state.exists() {
            return Ok(());
        }
        let aside = (1..)
            .map(|number| self.config.data_dir.join(format!("state.damaged-{number}")))
            .find(|path| !path.exists())
            .ok_or_else(|| io::Error::other("no name is left for the state"))?;
        fs::rename(state, &aside)?;
        File::open(&self.config.data_dir)?.sync_all()?;
        tracing::warn!(aside = %aside.display(), "the state of this member is put aside; another one's takes its place");
        Ok(())
    }

    async fn fetch(&self, applier: &mut Applier, wal: &Wal, least: u64) -> Result<(), StartError> {
        let (tx, mut received) = mpsc::channel(1);
        self.service.take_snapshots(Some(tx));
        let mut told = None;
        loop {
            let mut reasons = Vec::new();
            for (member, peer_urls) in self.inquiry.who_answers(self.me).await {
                let installed = match self.ask(member, peer_urls, &mut received).await {
                    Ok((vote, snapshot)) => {
                        follow(wal, vote).await?;
                        self.install(applier, &snapshot, least)
                    }
                    Err(status) => Err(status),
                };
                match installed {
                    Ok(()) => {
                        self.service.take_snapshots(None);
                        return Ok(());
                    }
                    Err(status) => reasons.push(format!("{member:x}: {}", status.message())),
                }
            }
            let reasons = reasons.join(", ");
            if told.as_ref() != Some(&reasons) {
                tracing::info!("waiting for a member that can send its state: {reasons}");
                told = Some(reasons);
            }
            sleep(ASK_AGAIN_AFTER).await;
        }
    }

    /// Asks a member to send its state here, and returns what came.
    async fn ask(
        &self,
        member: u64,
        peer_urls: Vec<String>,
        received: &mut mpsc::Receiver<(Vote, Snapshot)>,
    ) -> Result<(Vote, Snapshot), Status> {
        let node = Node {
            peer_urls,
            ..Node::default()
        };
        let link = self.links.to(member, &node);
        let mut client = link.client(Lane::Control);
        let sent = client
            .send_snapshot(link.request(pb::SendSnapshotRequest {}))
            .await;
        let sent = link.checked(sent);
        // A leader may have sent one by itself meanwhile, and then there was no place for this one.
        if let Ok(came) = received.try_recv() {
            return Ok(came);
        }
        sent?;
        Err(Status::unavailable("it sent nothing"))
    }

    fn install(&self, applier: &mut Applier, snapshot: &Snapshot, least: u64) -> Result<(), Status> {
        let reaches = snapshot.meta.last_log_id.is_some_and(|last| last.index >= least);
        let dir: Option<&SnapshotDir> = snapshot.snapshot.dir.as_deref().filter(|_| reaches);
        let dir = dir.ok_or_else(|| Status::unavailable("its state ends before the log here begins"))?;
        block(|| applier.install(dir.path())).map_err(|error| Status::data_loss(error.to_string()))
    }
}

/// Before the state is of a later term than this member has voted in: it votes in no term before that one any more. That
/// is what a leader's snapshot does too.
async fn follow(wal: &Wal, vote: Vote) -> io::Result<()> {
    let own = wal.state().vote.map(codec::decode_vote).transpose()?;
    if own.is_some_and(|own| own.leader_id.term >= vote.leader_id.term) {
        return Ok(());
    }
    done(|done| wal.save_vote(codec::encode_vote(&vote), done)).await
}

/// As after a snapshot was installed: what the state covers is not looked up in the log any more. If the log has another
/// entry in that place, that one and all after it were never committed.
async fn begin_log_after(wal: &Wal, applied: LogPosition) -> io::Result<()> {
    let known = wal.state();
    let holds = known.purged.is_none_or(|(_, purged)| purged < applied.index)
        && known.last.is_some_and(|(_, last)| last >= applied.index);
    if holds {
        let entries = wal.read(applied.index..applied.index + 1, 1)?;
        let is_another = entries.first().is_some_and(|entry| entry.term != applied.term);
        if is_another {
            let before = applied.index.checked_sub(1);
            done(|done| wal.truncate_after(before, done)).await?;
        }
    }
    if known.purged.is_some_and(|(_, purged)| purged >= applied.index) {
        return Ok(());
    }
    done(|done| wal.purge(applied.term, applied.index, done)).await
}

/// Waits until it is durable.
async fn done(write: impl FnOnce(barque_wal::Completion) -> io::Result<()>) -> io::Result<()> {
    let (tell, told) = oneshot::channel();
    // Who waits has not gone away.
    write(Box::new(move |written| drop(tell.send(written))))?;
    told.await.map_err(|_| io::Error::other("the log was closed"))?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use barque_wal::{WalConfig, WalEntry, files::RealFiles};

    use super::*;

    #[test]
    fn it_is_asked_for_once_and_only_of_a_member() {
        let dir = tempfile::tempdir().unwrap();
        let error = ask_for(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is no member's data directory"), "{error}");
        let member_dir = dir.path().join("member");
        fs::create_dir(&member_dir).unwrap();
        fs::write(member_dir.join("identity.json"), "{}").unwrap();
        assert_eq!(stage(&member_dir).unwrap(), None);
        ask_for(dir.path()).unwrap();
        assert_eq!(stage(&member_dir).unwrap(), Some(Stage::Wanted));
        note(&member_dir, Stage::Moved).unwrap();
        ask_for(dir.path()).unwrap();
        assert_eq!(stage(&member_dir).unwrap(), Some(Stage::Moved), "it is under way");
    }

    /// A log of entries 1 to 10, of term 3 up to 6 and of term 4 from there; then a state at this position.
    async fn check(at: (u64, u64), purged: u64, last: (u64, u64)) {
        let dir = tempfile::tempdir().unwrap();
        let open = || Wal::open(dir.path(), Arc::new(RealFiles), WalConfig::default()).unwrap();
        let (wal, _) = open();
        let entry = |index| WalEntry {
            term: if index <= 6 { 3 } else { 4 },
            index,
            kind: 0,
            payload: Default::default(),
        };
        done(|done| wal.purge(1, 0, done)).await.unwrap();
        done(|done| wal.append((1..=10).map(entry).collect(), done))
            .await
            .unwrap();
        let (term, index) = at;
        begin_log_after(&wal, LogPosition { term, index }).await.unwrap();
        // Again, as after a crash.
        begin_log_after(&wal, LogPosition { term, index }).await.unwrap();
        wal.close();
        drop(wal);
        let (_, recovered) = open();
        assert_eq!(recovered.purged, Some((term, purged)), "{at:?}");
        assert_eq!(recovered.last, Some(last), "{at:?}");
    }

    #[tokio::test]
    async fn the_log_goes_on_after_the_state_and_keeps_what_fits() {
        check((3, 5), 5, (4, 10)).await;
        check((4, 10), 10, (4, 10)).await;
        check((5, 17), 17, (5, 17)).await;
        // Another entry was committed there: what this log has from there on never was.
        check((5, 8), 8, (5, 8)).await;
    }

    fn data_dir() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let member_dir = dir.path().join("member");
        fs::create_dir(&member_dir).unwrap();
        fs::write(member_dir.join("identity.json"), "{}").unwrap();
        (dir, member_dir)
    }

    /// Whatever it says besides the two words says nothing of how far the rebuild is.
    #[test]
    fn a_damaged_note_is_refused_until_it_is_asked_for_again() {
        for damaged in ["", "vanted\n", "wante", "moved\nmoved\n", "\u{fffd}"] {
            let (dir, member_dir) = data_dir();
            fs::write(member_dir.join(FILE), damaged).unwrap();
            let error = stage(&member_dir).unwrap_err().to_string();
            assert!(
                error.contains("REBUILD: damaged") && error.contains("run `barque rebuild --data-dir"),
                "{error}"
            );
            ask_for(dir.path()).unwrap();
            assert_eq!(stage(&member_dir).unwrap(), Some(Stage::Wanted), "{damaged:?}");
        }
    }
}
