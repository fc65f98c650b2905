//! `barque status`: one line per member, asked of each member itself.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use barque_proto::etcd::etcdserverpb::{
    MemberListRequest, StatusRequest, StatusResponse, cluster_client::ClusterClient,
    maintenance_client::MaintenanceClient,
};
use clap::ValueEnum;
use futures_util::future::join_all;
use serde::Serialize;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::{cluster_dir::ClusterDir, up::DEFAULT_DIR};

const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A cluster of `barque up` [default: ./.barque]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["endpoints", "cacert", "cert", "key"])]
    dir: Option<PathBuf>,
    /// Client URLs of the members
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    endpoints: Vec<String>,
    /// The authority of the members' certificates
    #[arg(long, value_name = "FILE", requires = "endpoints")]
    cacert: Option<PathBuf>,
    /// A client certificate
    #[arg(long, value_name = "FILE", requires_all = ["endpoints", "key"])]
    cert: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires_all = ["endpoints", "cert"])]
    key: Option<PathBuf>,
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    healthy: bool,
    members: Vec<Row>,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    endpoint: String,
    member_id: String,
    leader: bool,
    /// The id of the leader that this member knows; 0 for none.
    #[serde(skip)]
    follows: u64,
    term: u64,
    revision: i64,
    raft_index: u64,
    applied_index: u64,
    lag: u64,
    db_bytes: i64,
    version: String,
    errors: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    restart: Option<String>,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let targets = Targets::from_args(&args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let report = runtime.block_on(report(&targets))?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Output::Table => print_table(&report),
    }
    Ok(if report.healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

struct Targets {
    endpoints: Vec<String>,
    tls: Option<ClientTlsConfig>,
    /// By endpoint, what starts its member again; known for a cluster of `barque up`.
    restarts: Vec<String>,
}

impl Targets {
    fn from_args(args: &Args) -> anyhow::Result<Self> {
        if args.endpoints.is_empty() {
            return Self::of_cluster(&ClusterDir::open(
                args.dir.as_deref().unwrap_or(DEFAULT_DIR.as_ref()),
            )?);
        }
        let secure = args
            .endpoints
            .iter()
            .any(|endpoint| endpoint.starts_with("https://"));
        if secure && args.cacert.is_none() {
            bail!("https endpoints need --cacert");
        }
        let tls = args
            .cacert
            .as_ref()
            .map(|ca| tls(ca, args.cert.as_ref().zip(args.key.as_ref())))
            .transpose()?;
        Ok(Self {
            endpoints: args.endpoints.clone(),
            tls,
            restarts: Vec::new(),
        })
    }

    fn of_cluster(dir: &ClusterDir) -> anyhow::Result<Self> {
        let cluster = dir.require()?;
        let tree = dir.pki();
        let admin = tree.etcd_admin();
        let restart = |name: &str| format!("barque master --config-file {}", dir.config_file(name).display());
        Ok(Self {
            restarts: cluster.masters.iter().map(|m| restart(&m.name)).collect(),
            endpoints: cluster
                .masters
                .iter()
                .map(|m| format!("https://127.0.0.1:{}", m.client_port))
                .collect(),
            tls: Some(tls(&tree.etcd_ca(), Some((&admin.cert, &admin.key)))?),
        })
    }

    async fn connect(&self, endpoint: &str) -> anyhow::Result<Channel> {
        let mut builder = Endpoint::from_shared(endpoint.to_owned())
            .with_context(|| format!("{endpoint} is not a URL"))?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        if let Some(tls) = self.tls.as_ref().filter(|_| endpoint.starts_with("https://")) {
            builder = builder.tls_config(tls.clone())?;
        }
        Ok(builder.connect().await?)
    }
}

fn tls(ca: &PathBuf, pair: Option<(&PathBuf, &PathBuf)>) -> anyhow::Result<ClientTlsConfig> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("read {}", path.display()));
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca)?));
    if let Some((cert, key)) = pair {
        config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(config)
}

async fn report(targets: &Targets) -> anyhow::Result<Report> {
    let mut members = join_all(targets.endpoints.iter().map(|endpoint| row(targets, endpoint))).await;
    for (row, restart) in members
        .iter_mut()
        .zip(&targets.restarts)
        .filter(|(row, _)| row.member_id.is_empty())
    {
        row.restart = Some(restart.clone());
    }
    // A lag is against the furthest log that anybody has; the members were not asked at one instant.
    let furthest = members.iter().map(|row| row.raft_index).max().unwrap_or(0);
    for row in members.iter_mut().filter(|row| row.errors.is_empty()) {
        row.lag = furthest.saturating_sub(row.applied_index);
    }
    Ok(Report {
        healthy: is_healthy(&members),
        members,
    })
}

/// All answer and name one leader, which need not be among those that were asked.
fn is_healthy(members: &[Row]) -> bool {
    let agrees = |row: &Row| row.errors.is_empty() && row.follows == members[0].follows;
    !members.is_empty() && members.iter().all(agrees)
}

async fn row(targets: &Targets, endpoint: &str) -> Row {
    let asked = tokio::time::timeout(TIMEOUT, ask(targets, endpoint)).await;
    let error = match asked {
        Ok(Ok(row)) => return row,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("no answer within {} s", TIMEOUT.as_secs()),
    };
    Row {
        endpoint: endpoint.to_owned(),
        errors: vec![error],
        ..Row::default()
    }
}

async fn ask(targets: &Targets, endpoint: &str) -> anyhow::Result<Row> {
    let channel = targets.connect(endpoint).await?;
    let status = MaintenanceClient::new(channel.clone())
        .status(StatusRequest {})
        .await;
    let status: StatusResponse = status
        .map_err(|status| anyhow::anyhow!("{}", status.message()))?
        .into_inner();
    let header = status.header.context("a status without a header")?;
    // Any member knows all names; serializable, so that it answers without a quorum too.
    let list = ClusterClient::new(channel)
        .member_list(MemberListRequest { linearizable: false })
        .await;
    let names = list.map(|list| list.into_inner().members).unwrap_or_default();
    let name = names
        .into_iter()
        .find(|member| member.id == header.member_id)
        .map(|member| member.name);
    let mut errors = status.errors;
    if status.leader == 0 {
        errors.push("no leader".to_owned());
    }
    Ok(Row {
        name: name.unwrap_or_default(),
        endpoint: endpoint.to_owned(),
        member_id: format!("{:x}", header.member_id),
        leader: status.leader == header.member_id && status.leader != 0,
        follows: status.leader,
        term: status.raft_term,
        revision: header.revision,
        raft_index: status.raft_index,
        applied_index: status.raft_applied_index,
        lag: 0,
        db_bytes: status.db_size,
        version: status.version,
        errors,
        restart: None,
    })
}

const COLUMNS: [&str; 11] = [
    "NAME", "ID", "ENDPOINT", "LEADER", "TERM", "REVISION", "INDEX", "APPLIED", "LAG", "DB SIZE", "VERSION",
];

fn print_table(report: &Report) {
    let mut lines: Vec<Vec<String>> = vec![COLUMNS.map(str::to_owned).to_vec()];
    lines.extend(report.members.iter().map(cells));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|at| lines.iter().map(|line| line[at].len()).max().unwrap_or(0))
        .collect();
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        println!("{}", padded.join("  ").trim_end());
    }
    for row in &report.members {
        for error in &row.errors {
            println!("{}: {error}", row.endpoint);
        }
        if let Some(restart) = &row.restart {
            println!("  to start it again: {restart}");
        }
    }
    if !report.healthy {
        println!("unhealthy");
    }
}

fn cells(row: &Row) -> Vec<String> {
    if row.member_id.is_empty() {
        let mut cells = vec!["-".to_owned(); COLUMNS.len()];
        cells[2].clone_from(&row.endpoint);
        return cells;
    }
    vec![
        row.name.clone(),
        row.member_id.clone(),
        row.endpoint.clone(),
        if row.leader { "yes" } else { "no" }.to_owned(),
        row.term.to_string(),
        row.revision.to_string(),
        row.raft_index.to_string(),
        row.applied_index.to_string(),
        row.lag.to_string(),
        size(row.db_bytes),
        row.version.clone(),
    ]
}

fn size(bytes: i64) -> String {
    indicatif::HumanBytes(bytes.unsigned_abs()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_alone_are_healthy_and_members_that_disagree_are_not() {
        let row = |follows, error: &str| Row {
            follows,
            errors: (!error.is_empty())
                .then(|| error.to_owned())
                .into_iter()
                .collect(),
            ..Row::default()
        };
        assert!(is_healthy(&[row(7, ""), row(7, "")]));
        assert!(!is_healthy(&[row(7, ""), row(8, "")]));
        assert!(!is_healthy(&[row(7, ""), row(7, "alarm")]));
        assert!(!is_healthy(&[]));
    }
}
