//! Sends a snapshot's files to a member that is too far behind for the log.
//!
//! The receiver says what it already holds of the files, so that a broken transfer goes on where it stopped.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use barque_proto::peer as pb;
use barque_store::Store;
use bytes::Bytes;
use openraft::errors::{NetworkError, StreamingError, Unreachable};
use pb::{snapshot_reply::Part as Reply, snapshot_request::Part};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::link::{Lane, Link};
use crate::{
    blocking::block,
    codec,
    types::{Snapshot, TypeConfig, Vote},
};

const CHUNK_BYTES: u64 = 1 << 20;
const BUFFERED: usize = 4;
const PROGRESS_EVERY: Duration = Duration::from_secs(5);

pub type SendError = StreamingError<TypeConfig>;

fn failed(status: Status) -> SendError {
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::FailedPrecondition => {
            SendError::Unreachable(Unreachable::from_string(status.message()))
        }
        _ => SendError::Network(NetworkError::from_string(status.message())),
    }
}

fn unreadable(error: io::Error) -> SendError {
    SendError::Network(NetworkError::from_string(format!(
        "cannot read the snapshot: {error}"
    )))
}

/// One file of the snapshot.
struct SourceFile {
    path: PathBuf,
    length: u64,
}

/// Regular files below `dir`, by relative name.
fn list(dir: &Path, prefix: &str, into: &mut Vec<(String, SourceFile)>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|_| io::Error::other("a file name is not UTF-8"))?;
        let name = format!("{prefix}{name}");
        let meta = entry.metadata()?;
        match meta.is_dir() {
            true => list(&entry.path(), &format!("{name}/"), into)?,
            false => into.push((
                name,
                SourceFile {
                    path: entry.path(),
                    length: meta.len(),
                },
            )),
        }
    }
    Ok(())
}

pub struct Sender<'a> {
    pub link: &'a Link,
    /// Of the member that sends; told when its files are damaged.
    pub store: &'a Store,
    /// 0: as fast as it goes.
    pub bytes_per_second: u64,
}

impl Sender<'_> {
    /// Returns the receiver's vote once the snapshot is installed there, or refused for a higher one.
    pub async fn send(&self, vote: Vote, snapshot: &Snapshot) -> Result<Vote, SendError> {
        let Some(dir) = &snapshot.snapshot.dir else {
            return Err(unreadable(io::Error::other("it has no files")));
        };
        self.verify(dir.path())?;
        let mut files = Vec::new();
        list(dir.path(), "", &mut files).map_err(unreadable)?;
        files.sort_by(|a, b| a.0.cmp(&b.0));
        let (tx, rx) = mpsc::channel(BUFFERED);
        let request = self.link.request(ReceiverStream::new(rx));
        let replies = self.link.client(Lane::Snapshot).snapshot(request).await;
        let mut replies = self.link.checked(replies).map_err(failed)?;
        let total: u64 = files.iter().map(|(_, file)| file.length).sum();
        tracing::info!(
            to = format!("{:x}", self.link.to),
            files = files.len(),
            bytes = total,
            "sending a snapshot"
        );
        send_part(
            &tx,
            &mut replies,
            Part::Manifest(manifest(vote, snapshot, &files)),
        )
        .await?;
        let offsets = match next(&mut replies).await? {
            Reply::Have(have) if have.offsets.len() == files.len() => have.offsets,
            Reply::Vote(vote) => return Ok(codec::vote_from_pb(vote)),
            Reply::Have(_) => return Err(failed(Status::internal("an answer to another manifest"))),
        };
        self.send_files(&tx, &mut replies, &files, &offsets, total)
            .await?;
        send_part(&tx, &mut replies, Part::Done(true)).await?;
        match next(&mut replies).await? {
            Reply::Vote(vote) => Ok(codec::vote_from_pb(vote)),
            Reply::Have(_) => Err(failed(Status::internal(
                "an unexpected answer after the last file",
            ))),
        }
    }

    /// Before the first byte: the receiver would take the damage for the state, and nobody would have it whole any more.
    fn verify(&self, dir: &Path) -> Result<(), SendError> {
        block(|| self.store.verify_dir(dir, &mut |_| true)).map_err(|error| {
            self.store.note_damage(&error);
            unreadable(io::Error::other(error))
        })
    }

    async fn send_files(
        &self,
        tx: &mpsc::Sender<pb::SnapshotRequest>,
        replies: &mut Streaming<pb::SnapshotReply>,
        files: &[(String, SourceFile)],
        offsets: &[u64],
        total: u64,
    ) -> Result<(), SendError> {
        let mut pace = Pace::new(self.bytes_per_second, total, offsets.iter().sum());
        for (number, ((_, file), offset)) in files.iter().zip(offsets).enumerate() {
            let mut at = *offset;
            let open = File::open(&file.path).map_err(unreadable)?;
            while at < file.length {
                let length = CHUNK_BYTES.min(file.length - at);
                let data = block(|| read_at(&open, at, length)).map_err(unreadable)?;
                let crc32c = crc32c::crc32c(&data);
                let chunk = pb::SnapshotChunk {
                    file: number as u32,
                    offset: at,
                    data,
                    crc32c,
                };
                send_part(tx, replies, Part::Chunk(chunk)).await?;
                at += length;
                pace.sent(length, self.link.to).await;
            }
        }
        Ok(())
    }
}

fn read_at(file: &File, offset: u64, length: u64) -> io::Result<Bytes> {
    let mut data = vec![0; length as usize];
    file.read_exact_at(&mut data, offset)?;
    Ok(data.into())
}

fn manifest(vote: Vote, snapshot: &Snapshot, files: &[(String, SourceFile)]) -> pb::SnapshotManifest {
    let membership = &snapshot.meta.last_membership;
    let files = files.iter().map(|(name, file)| pb::SnapshotFile {
        name: name.clone(),
        length: file.length,
    });
    pb::SnapshotManifest {
        vote: Some(codec::vote_to_pb(&vote)),
        last: snapshot.meta.last_log_id.as_ref().map(codec::log_id_to_pb),
        membership_at: membership.log_id().as_ref().map(codec::log_id_to_pb),
        membership: Some(codec::membership_to_pb(membership.membership())),
        files: files.collect(),
        source: snapshot.snapshot.source,
    }
}

/// Sends, or finds out from the receiver why it does not listen any more.
async fn send_part(
    tx: &mpsc::Sender<pb::SnapshotRequest>,
    replies: &mut Streaming<pb::SnapshotReply>,
    part: Part,
) -> Result<(), SendError> {
    if tx.send(pb::SnapshotRequest { part: Some(part) }).await.is_ok() {
        return Ok(());
    }
    match replies.message().await {
        Err(status) => Err(failed(status)),
        Ok(_) => Err(failed(Status::unavailable("the receiver closed the transfer"))),
    }
}

async fn next(replies: &mut Streaming<pb::SnapshotReply>) -> Result<Reply, SendError> {
    let reply = replies.message().await.map_err(failed)?;
    reply
        .and_then(|reply| reply.part)
        .ok_or_else(|| failed(Status::unavailable("the receiver closed the transfer")))
}

/// Keeps to the rate and says now and then how far it is.
struct Pace {
    bytes_per_second: u64,
    began: Instant,
    sent: u64,
    done: u64,
    total: u64,
    said: Instant,
}

impl Pace {
    fn new(bytes_per_second: u64, total: u64, done: u64) -> Self {
        let now = Instant::now();
        Self {
            bytes_per_second,
            began: now,
            sent: 0,
            done,
            total,
            said: now,
        }
    }

    async fn sent(&mut self, bytes: u64, to: u64) {
        self.sent += bytes;
        self.done += bytes;
        if self.said.elapsed() >= PROGRESS_EVERY {
            self.said = Instant::now();
            tracing::info!(
                to = format!("{to:x}"),
                sent = self.done,
                of = self.total,
                "sending a snapshot"
            );
        }
        if self.bytes_per_second > 0 {
            let due = Duration::from_secs_f64(self.sent as f64 / self.bytes_per_second as f64);
            sleep_until(self.began + due).await;
        }
    }
}
