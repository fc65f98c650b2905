//! The Kubernetes API under load: LIST of many pods, and one object's changes to many watches, over TLS.

mod fan_out;
mod list;
mod objects;

use anyhow::Context;
use barque_chaos::{
    cluster::{Cluster, Options},
    http::Server,
};
use serde::Serialize;

use crate::{KubernetesArgs, machine::Machine};

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    list: list::Listed,
    fan_out: fan_out::FannedOut,
}

pub async fn run(args: KubernetesArgs) -> anyhow::Result<()> {
    let machine = Machine::read(&std::env::temp_dir())?;
    println!("{}\n", machine.header());
    let cluster = Cluster::barque(
        args.members,
        Options {
            api: true,
            ..Options::default()
        },
    )
    .await?;
    let certificate = cluster
        .admin_certificate()
        .context("a cluster with its API has certificates")?;
    let url = cluster.api_endpoint(0).context("the API was asked for")?;
    let server = Server::new(&url, Some(&certificate))?;

    let list = list::run(&cluster, &server, args.pods, args.repetitions).await?;
    println!("{list}");
    let fan_out = fan_out::run(&cluster, &server, args.watches, args.rate, args.repetitions).await?;
    println!("{fan_out}");
    if let Some(path) = &args.json {
        let report = Report {
            machine: &machine,
            list,
            fan_out,
        };
        std::fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| path.display().to_string())?;
    }
    Ok(())
}
