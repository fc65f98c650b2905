//! What members say about themselves during a run: who leads, and what they hold.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use barque_chaos::cluster::{Access, Cluster};
use barque_checks::history::{LeaderRecord, MemberState};
use barque_traffic::Recorder;
use etcd_client::{Client, HashKvResponse};
use tokio::time::{sleep, timeout};

use super::site::Site;

const EVERY: Duration = Duration::from_millis(300);
const ATTEMPT: Duration = Duration::from_secs(2);

pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Asks one member again and again whether it leads, until it is dropped.
pub async fn note_leaders(access: Access, member: u32, now_us: Clock, recorder: Recorder) {
    let mut client = None;
    loop {
        sleep(EVERY).await;
        match timeout(ATTEMPT * 2, term_led(&access, &mut client)).await {
            Ok(Ok(Some(term))) => note(&recorder, term, member, now_us()),
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => client = None,
        }
    }
}

fn note(recorder: &Recorder, term: u64, member: u32, time: u64) {
    recorder.history(|history| {
        let known = |record: &LeaderRecord| record.term == term && record.member == member;
        if !history.leaders.iter().any(known) {
            history.leaders.push(LeaderRecord { time, term, member });
        }
    });
}

/// A status is not taken at one moment: etcd tells the leader it follows with the term of what it has applied. With a
/// read through the quorum between two that say the same, the term is the one that it leads.
async fn term_led(access: &Access, client: &mut Option<Client>) -> anyhow::Result<Option<u64>> {
    if client.is_none() {
        *client = Some(access.connect(ATTEMPT).await?);
    }
    let client = client.as_mut().context("just connected")?;
    let Some(first) = says_it_leads(client).await? else {
        return Ok(None);
    };
    client.get("k/", None).await?;
    let second = says_it_leads(client).await?;
    Ok(second.filter(|second| *second == first))
}

async fn says_it_leads(client: &mut Client) -> anyhow::Result<Option<u64>> {
    let status = client.status().await?;
    let itself = status.header().context("a status without header")?.member_id();
    Ok((status.leader() == itself).then(|| status.raft_term()))
}

/// The revision of the newest write that was acknowledged before the call.
pub async fn newest(cluster: &Cluster, index: usize) -> anyhow::Result<i64> {
    let mut client = cluster.access(index).connect(ATTEMPT).await?;
    let read = client.get("k/", None).await?;
    Ok(read.header().context("a read without header")?.revision())
}

/// What every member has at one revision, or a later one if that was compacted.
pub async fn states(cluster: &Cluster) -> anyhow::Result<Vec<MemberState>> {
    let revision = newest(cluster, 0).await?;
    let mut states = Vec::new();
    for index in 0..cluster.len() {
        let state = state(cluster, index, revision).await;
        states.push(state.with_context(|| cluster.name(index).to_owned())?);
    }
    Ok(states)
}

async fn state(cluster: &Cluster, index: usize, at: i64) -> anyhow::Result<MemberState> {
    let mut client = cluster.access(index).connect(ATTEMPT * 3).await?;
    // The member has applied all up to there.
    let read = client.get("k/", None).await?;
    let revision = read.header().context("a read without header")?.revision();
    let (hash, hash_revision) = hash(&mut client, at).await?;
    Ok(MemberState {
        member: Site::id(index),
        revision,
        compact_revision: hash.compact_version(),
        applied: 0,
        hash: hash.hash().into(),
        hash_revision,
    })
}

/// With the revision that it is of. Older releases of etcd refuse the compact revision itself, be it the newest, unless
/// they are asked for the newest by no name.
async fn hash(client: &mut Client, at: i64) -> anyhow::Result<(HashKvResponse, i64)> {
    match client.hash_kv(at).await {
        Err(error) if error.to_string().contains("compacted") => {
            let hash = client.hash_kv(0).await?;
            let revision = hash.header().context("a hash without header")?.revision();
            Ok((hash, revision))
        }
        answer => Ok((answer?, at)),
    }
}

#[cfg(test)]
mod tests {
    use barque_chaos::cluster::{Kind, Options};

    use super::*;

    #[tokio::test]
    async fn members_are_compared_at_a_newest_revision_that_is_compacted() {
        for kind in [Kind::Etcd, Kind::Barque] {
            let cluster = Cluster::start(kind, 1, Options::default()).await.unwrap();
            let mut client = cluster.access(0).connect(ATTEMPT).await.unwrap();
            let put = client.put("k/1", "v", None).await.unwrap();
            let revision = put.header().unwrap().revision();
            client.compact(revision, None).await.unwrap();
            let states = states(&cluster).await.unwrap();
            let of = |state: &MemberState| (state.revision, state.compact_revision, state.hash_revision);
            assert_eq!(
                states.iter().map(of).collect::<Vec<_>>(),
                [(revision, revision, revision)]
            );
        }
    }
}
