//! Receives a snapshot's files into `snap/in`, resumably, and hands them to Raft when they are complete.
//!
//! A file counts as held up to the bytes that this process wrote itself; after a restart the transfer begins anew.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use barque_proto::peer as pb;
use tonic::Status;

use crate::{
    codec,
    snapshot::{SnapshotData, SnapshotDir},
    types::{Snapshot, SnapshotMeta, StoredMembership, Vote},
};

/// What has been received, across attempts.
pub struct Receiver {
    /// Holds `in` and, while they are being installed, complete snapshots.
    dir: PathBuf,
    source: u64,
    held: HashMap<String, Held>,
    current: Vec<pb::SnapshotFile>,
    open: Option<(u32, File)>,
    number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    length: u64,
    written: u64,
}

fn internal(what: &str) -> impl Fn(io::Error) -> Status + '_ {
    move |error| Status::internal(format!("{what}: {error}"))
}

/// A relative path without tricks.
fn is_plain(name: &str) -> bool {
    let path = Path::new(name);
    !name.is_empty() && path.components().all(|part| matches!(part, Component::Normal(_)))
}

/// Table files never change; the others are written again under the same name.
fn is_immutable(name: &str) -> bool {
    name.ends_with(".sst") || name.ends_with(".blob")
}

impl Receiver {
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            source: 0,
            held: HashMap::new(),
            current: Vec::new(),
            open: None,
            number: 0,
        }
    }

    fn incoming(&self) -> PathBuf {
        self.dir.join("in")
    }

    /// Begins or resumes a transfer; returns how many bytes of each file are here already.
    pub fn begin(&mut self, manifest: &pb::SnapshotManifest) -> Result<Vec<u64>, Status> {
        if let Some(bad) = manifest.files.iter().find(|file| !is_plain(&file.name)) {
            return Err(Status::invalid_argument(format!(
                "snapshot file name {:?}",
                bad.name
            )));
        }
        let failed = internal("snapshot directory");
        if manifest.source != self.source || !self.incoming().exists() {
            self.clear().map_err(&failed)?;
            self.source = manifest.source;
        }
        let wanted: HashMap<&str, u64> = manifest
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.length))
            .collect();
        let keep = |name: &str, held: &Held| is_immutable(name) && wanted.get(name) == Some(&held.length);
        let stale: Vec<String> = self
            .held
            .iter()
            .filter(|(name, held)| !keep(name, held))
            .map(|(name, _)| name.clone())
            .collect();
        for name in stale {
            self.held.remove(&name);
            fs::remove_file(self.incoming().join(&name)).map_err(&failed)?;
        }
        self.current = manifest.files.clone();
        self.open = None;
        Ok(self
            .current
            .iter()
            .map(|file| self.held.get(&file.name).map_or(0, |held| held.written))
            .collect())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.held.clear();
        self.open = None;
        match fs::remove_dir_all(self.incoming()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::create_dir_all(self.incoming())
    }

    pub fn write(&mut self, chunk: &pb::SnapshotChunk) -> Result<(), Status> {
        if crc32c::crc32c(&chunk.data) != chunk.crc32c {
            return Err(Status::data_loss(
                "a chunk of the snapshot does not fit its checksum",
            ));
        }
        let Some(file) = self.current.get(chunk.file as usize).cloned() else {
            return Err(Status::invalid_argument(
                "a chunk of a file that is not in the manifest",
            ));
        };
        let written = self.held.get(&file.name).map_or(0, |held| held.written);
        let end = chunk.offset + chunk.data.len() as u64;
        if chunk.offset != written || end > file.length {
            return Err(Status::invalid_argument(format!(
                "a chunk of {} at the wrong place",
                file.name
            )));
        }
        let failed = internal("snapshot file");
        self.file(chunk.file, &file.name)
            .map_err(&failed)?
            .write_all_at(&chunk.data, chunk.offset)
            .map_err(&failed)?;
        self.held.insert(
            file.name,
            Held {
                length: file.length,
                written: end,
            },
        );
        Ok(())
    }

    fn file(&mut self, number: u32, name: &str) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            let path = self.incoming().join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let file = OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(path)?;
            self.open = Some((number, file));
        }
        match &self.open {
            Some((_, file)) => Ok(file),
            None => Err(io::Error::other("no file is open")),
        }
    }

    /// All files are here: makes them durable and gives them away.
    pub fn finish(&mut self, manifest: &pb::SnapshotManifest) -> Result<(Vote, Snapshot), Status> {
        let failed = internal("snapshot directory");
        for file in &self.current {
            let written = self.held.get(&file.name).map_or(0, |held| held.written);
            if written != file.length {
                return Err(Status::data_loss(format!(
                    "{}: {written} of {} bytes",
                    file.name, file.length
                )));
            }
            if file.length == 0 {
                File::create(self.incoming().join(&file.name)).map_err(&failed)?;
            }
            File::open(self.incoming().join(&file.name))
                .and_then(|file| file.sync_all())
                .map_err(&failed)?;
        }
        self.number += 1;
        let complete = self.dir.join(format!("complete-{}", self.number));
        fs::rename(self.incoming(), &complete).map_err(&failed)?;
        for dir in [&complete, &self.dir] {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(&failed)?;
        }
        self.held.clear();
        self.source = 0;
        let data = SnapshotData {
            dir: Some(Arc::new(SnapshotDir::new(complete))),
            source: manifest.source,
        };
        Ok((
            codec::vote_from_pb(manifest.vote.unwrap_or_default()),
            Snapshot {
                meta: meta(manifest)?,
                snapshot: data,
            },
        ))
    }
}

fn meta(manifest: &pb::SnapshotManifest) -> Result<SnapshotMeta, Status> {
    let membership = codec::membership_from_pb(manifest.membership.clone().unwrap_or_default());
    let membership = membership.map_err(internal("snapshot manifest"))?;
    Ok(SnapshotMeta {
        last_log_id: manifest.last.map(codec::log_id_from_pb),
        last_membership: StoredMembership::new(manifest.membership_at.map(codec::log_id_from_pb), membership),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(source: u64, files: &[(&str, u64)]) -> pb::SnapshotManifest {
        let files = files.iter().map(|(name, length)| pb::SnapshotFile {
            name: name.to_string(),
            length: *length,
        });
        pb::SnapshotManifest {
            source,
            files: files.collect(),
            ..Default::default()
        }
    }

    fn chunk(file: u32, offset: u64, data: &'static [u8]) -> pb::SnapshotChunk {
        pb::SnapshotChunk {
            file,
            offset,
            data: data.into(),
            crc32c: crc32c::crc32c(data),
        }
    }

    #[test]
    fn a_transfer_resumes_where_it_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(dir.path().into());
        let files = [("1.sst", 4), ("CURRENT", 2)];
        assert_eq!(receiver.begin(&manifest(1, &files)).unwrap(), [0, 0]);
        receiver.write(&chunk(0, 0, b"ab")).unwrap();
        receiver.write(&chunk(1, 0, b"x")).unwrap();
        let manifest = manifest(1, &files);
        assert_eq!(receiver.begin(&manifest).unwrap(), [2, 0]);
        assert!(receiver.finish(&manifest).is_err());
        receiver.write(&chunk(0, 2, b"cd")).unwrap();
        receiver.write(&chunk(1, 0, b"yz")).unwrap();
        let (_, snapshot) = receiver.finish(&manifest).unwrap();
        let complete = snapshot.snapshot.dir.unwrap();
        assert_eq!(fs::read(complete.path().join("1.sst")).unwrap(), b"abcd");
        assert_eq!(fs::read(complete.path().join("CURRENT")).unwrap(), b"yz");
        let path = complete.path().to_path_buf();
        drop(complete);
        assert!(!path.exists());
    }

    #[test]
    fn files_of_another_database_are_not_mixed_in() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(dir.path().into());
        receiver.begin(&manifest(1, &[("1.sst", 4)])).unwrap();
        receiver.write(&chunk(0, 0, b"ab")).unwrap();
        assert_eq!(receiver.begin(&manifest(2, &[("1.sst", 4)])).unwrap(), [0]);
    }

    #[test]
    fn bad_names_and_bad_chunks_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut receiver = Receiver::new(dir.path().into());
        for name in ["../x", "/x", "", "a/../b"] {
            assert!(receiver.begin(&manifest(1, &[(name, 1)])).is_err(), "{name}");
        }
        receiver.begin(&manifest(1, &[("1.sst", 2)])).unwrap();
        assert!(receiver.write(&chunk(1, 0, b"a")).is_err());
        assert!(receiver.write(&chunk(0, 1, b"a")).is_err());
        assert!(receiver.write(&chunk(0, 0, b"abc")).is_err());
        assert!(
            receiver
                .write(&pb::SnapshotChunk {
                    crc32c: 0,
                    ..chunk(0, 0, b"a")
                })
                .is_err()
        );
    }
}
