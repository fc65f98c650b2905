//! A member loses its data, is refused under its old id, and is replaced by `member remove` and `member add`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use etcd_client::MemberAddOptions;
use tokio::time::sleep;

use super::{
    inflict::{Seen, kill_now},
    site::Site,
};

const REFUSAL: &str = "has already been bootstrapped";
const PATIENCE: Duration = Duration::from_secs(60);
const ATTEMPT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);

pub async fn wipe_and_replace(site: &mut Site) -> anyhow::Result<Seen> {
    let index = site.follower().await?;
    let helper = site.cluster.leader().await?;
    let id = member_id(site, index).await?;
    let known = site.cluster.log(index).matches(REFUSAL).count();
    kill_now(site, index)?;
    site.wipe(index)?;
    site.restart(index)?;
    let status = site.cluster.exited(index, PATIENCE).await?;
    let refused = site.cluster.log(index).matches(REFUSAL).count() > known;
    // What it may have left while it asked is no place to join from.
    site.wipe(index)?;
    until_done("member remove", || remove(site, helper, id)).await?;
    until_done("member add", || add(site, helper, index)).await?;
    site.cluster.join(index);
    site.restart(index)?;
    let seen = (refused && !status.success()).then(|| {
        let said = format!("wiped, it left with {status} and \"{REFUSAL}\"");
        format!("{said}; removed as {id:x} and added again")
    });
    Ok((vec![index], seen))
}

async fn member_id(site: &Site, index: usize) -> anyhow::Result<u64> {
    let mut client = site.cluster.access(index).connect(ATTEMPT).await?;
    let status = client.status().await?;
    Ok(status.header().context("a status without header")?.member_id())
}

/// An answer may get lost on the way: then it is gone already.
async fn remove(site: &Site, helper: usize, id: u64) -> anyhow::Result<()> {
    let mut client = site.cluster.access(helper).connect(ATTEMPT).await?;
    let members = client.member_list().await?;
    if members.members().iter().any(|member| member.id() == id) {
        client.member_remove(id).await?;
    }
    Ok(())
}

async fn add(site: &Site, helper: usize, index: usize) -> anyhow::Result<()> {
    let mut client = site.cluster.access(helper).connect(ATTEMPT).await?;
    let url = site.cluster.peer_url(index);
    let members = client.member_list().await?;
    let is_added = members
        .members()
        .iter()
        .any(|member| member.peer_urls().contains(&url));
    if !is_added {
        client.member_add([url], None::<MemberAddOptions>).await?;
    }
    Ok(())
}

/// Changes of the membership are refused while members do not hear one another well.
async fn until_done<F>(what: &str, mut attempt: impl FnMut() -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = attempt().await {
        if Instant::now() > deadline {
            bail!("no {what} within {PATIENCE:?}: {error:#}");
        }
        sleep(PAUSE).await;
    }
    Ok(())
}
