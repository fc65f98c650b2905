//! When a cluster is ready, and who leads it. Every wait is bounded, ends at once when a process has died, and says
//! what it last saw.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};

use super::{ClientCertificate, Cluster, MemberState};

const PATIENCE: Duration = Duration::from_secs(60);
const ATTEMPT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// What one member says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Said {
    member_id: u64,
    leader: u64,
}

/// One member's etcd API, and what its clients present.
#[derive(Debug, Clone)]
pub struct Access {
    endpoint: String,
    certificate: Option<ClientCertificate>,
}

impl Access {
    /// Each of the client's requests has `time_limit` to be answered.
    pub async fn connect(&self, time_limit: Duration) -> anyhow::Result<Client> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(ATTEMPT)
            .with_timeout(time_limit);
        if let Some(files) = &self.certificate {
            let identity = Identity::from_pem(std::fs::read(&files.certificate)?, std::fs::read(&files.key)?);
            let ca = Certificate::from_pem(std::fs::read(&files.ca)?);
            options = options.with_tls(TlsOptions::new().ca_certificate(ca).identity(identity));
        }
        Ok(Client::connect([&self.endpoint], Some(options)).await?)
    }
}

impl Cluster {
    /// A client of member `index` alone.
    pub async fn client(&self, index: usize) -> anyhow::Result<Client> {
        self.access(index).connect(Duration::from_secs(20)).await
    }

    /// How to reach member `index`, for a task that outlives a borrow of the cluster.
    pub fn access(&self, index: usize) -> Access {
        Access {
            endpoint: self.endpoint(index),
            certificate: self.client_certificate(),
        }
    }

    /// Every member that may run answers a linearizable read, and all of them name one leader.
    pub async fn wait_healthy(&self) -> anyhow::Result<()> {
        let running: Vec<usize> = (0..self.len())
            .filter(|&i| self.state(i) == MemberState::Running)
            .collect();
        for &index in &running {
            self.wait_for("healthy", || self.read_through(index)).await?;
        }
        self.leader().await?;
        self.wait_api(&running).await
    }

    /// The index of the leader on which all running members agree.
    pub async fn leader(&self) -> anyhow::Result<usize> {
        self.wait_for("a leader", || self.agreed_leader()).await
    }

    async fn agreed_leader(&self) -> anyhow::Result<usize> {
        let mut said = Vec::new();
        for index in 0..self.len() {
            if self.state(index) == MemberState::Running {
                said.push((index, self.ask(index).await?));
            }
        }
        let Some((_, first)) = said.first() else {
            bail!("no member runs")
        };
        if said.iter().any(|(_, other)| other.leader != first.leader) {
            bail!("members disagree: {said:?}");
        }
        let leader = said.iter().find(|(_, other)| other.member_id == first.leader);
        Ok(leader
            .with_context(|| format!("the leader is not among those that run: {said:?}"))?
            .0)
    }

    async fn ask(&self, index: usize) -> anyhow::Result<Said> {
        let question = async {
            let status = self.client(index).await?.status().await?;
            let header = status.header().context("a status without header")?;
            anyhow::Ok(Said {
                member_id: header.member_id(),
                leader: status.leader(),
            })
        };
        self.attempt(index, question).await
    }

    async fn read_through(&self, index: usize) -> anyhow::Result<()> {
        let read = async {
            self.client(index).await?.get("health", None).await?;
            anyhow::Ok(())
        };
        self.attempt(index, read).await
    }

    async fn attempt<T>(
        &self,
        index: usize,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let name = self.name(index);
        tokio::time::timeout(ATTEMPT, work)
            .await
            .with_context(|| format!("{name} did not answer in {ATTEMPT:?}"))?
            .with_context(|| format!("{name} at {}", self.endpoint(index)))
    }

    async fn wait_api(&self, running: &[usize]) -> anyhow::Result<()> {
        if !self.options.api {
            return Ok(());
        }
        for &index in running {
            let kubectl = self.kubectl_of(index)?;
            self.wait_for("ready", || async {
                kubectl.run(&["get", "--raw", "/readyz"]).await?.success()
            })
            .await?;
        }
        Ok(())
    }

    /// Tries until it succeeds or patience ends; a member that exited meanwhile ends it at once.
    async fn wait_for<T, F>(&self, what: &str, mut attempt: impl FnMut() -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let error = match attempt().await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            for index in 0..self.len() {
                let member = &self.members[index];
                if member
                    .process
                    .as_ref()
                    .is_some_and(|process| !process.is_running())
                {
                    bail!(
                        "{} exited by itself; its last words:\n{}",
                        member.name,
                        self.last_lines(index, 30)
                    );
                }
            }
            if Instant::now() > deadline {
                return Err(error.context(format!("not {what} within {PATIENCE:?}")));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Kind;

    #[tokio::test]
    async fn three_members_of_etcd_survive_the_loss_of_their_leader() {
        let mut cluster = Cluster::etcd(3).await.unwrap();
        let leader = cluster.leader().await.unwrap();
        cluster
            .client(leader)
            .await
            .unwrap()
            .put("key", "value", None)
            .await
            .unwrap();
        cluster.kill9(leader).unwrap();
        assert_eq!(cluster.state(leader), MemberState::Down);
        let next = cluster.leader().await.unwrap();
        assert_ne!(next, leader);
        let read = cluster
            .client(next)
            .await
            .unwrap()
            .get("key", None)
            .await
            .unwrap();
        assert_eq!(read.kvs()[0].value(), b"value");

        cluster.restart(leader).unwrap();
        cluster.wait_healthy().await.unwrap();
        let output = cluster.etcdctl_of(leader).run(&["get", "key"]).await.unwrap();
        assert_eq!(output.success().unwrap(), "key\nvalue\n");
        assert!(cluster.usage(leader).unwrap().resident_bytes > 0);
        let status = cluster.terminate(leader, Duration::from_secs(20)).await.unwrap();
        assert!(!cluster.log(leader).is_empty(), "{status}");
    }

    #[tokio::test]
    async fn a_member_that_exits_is_reported_with_its_words() {
        let options = super::super::Options {
            extra_flags: vec!["--no-such-flag".into()],
            ..super::super::Options::default()
        };
        let error = Cluster::start(Kind::Etcd, 1, options).await.err().unwrap();
        assert!(format!("{error:#}").contains("no-such-flag"), "{error:#}");
    }
}
