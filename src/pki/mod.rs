//! `barque pki`: the three certificate authorities and what they issue.
//!
//! Peers, etcd clients and Kubernetes clients each have an authority of their own, and every listener trusts
//! exactly one of them: a certificate of one is refused by the others by construction.

mod authority;
mod issue;
mod kubeconfig;
mod tree;

use std::{path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Subcommand;

pub use authority::{Lifetime, expires_within};
pub use issue::{Host, issue_etcd_user, issue_master, issue_user};
pub use kubeconfig::Kubeconfig;
pub use tree::{KeyPairPaths, MasterPaths, Tree};

use authority::Kind;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the three authorities (peers, etcd clients, Kubernetes) and an administrator's certificates
    Init(Init),
    /// Issue what one master, or one user, needs
    Issue(Box<Issue>),
}

#[derive(Debug, clap::Args)]
struct Init {
    /// Where the certificates live; keep it off the production hosts
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// How long the authorities are valid
    #[arg(long, value_name = "YEARS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    ca_years: u32,
    /// How long the administrator's certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Replace what is there; every certificate issued before becomes worthless
    #[arg(long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("subject").required(true).args(["master", "user", "etcd_user"])))]
struct Issue {
    /// The directory that `barque pki init` made
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Peer, etcd and API serving certificates for the master of this name, in DIR/masters/NAME
    #[arg(long, value_name = "NAME", requires = "host")]
    master: Option<String>,
    /// An IP address or DNS name under which the master is reached; may be repeated
    #[arg(long, value_name = "IP|DNS")]
    host: Vec<String>,
    /// A Kubernetes client certificate for this user, in DIR/users
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// A group of the user, such as system:masters; may be repeated
    #[arg(long, value_name = "GROUP", conflicts_with_all = ["master", "etcd_user"])]
    group: Vec<String>,
    /// An etcd client certificate for this user, in DIR/etcd-users
    #[arg(long, value_name = "NAME")]
    etcd_user: Option<String>,
    /// Write a kubeconfig for the user too, pointing at this URL
    #[arg(long, value_name = "URL", requires = "user")]
    server: Option<String>,
    /// How long the certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Replace what is there
    #[arg(long)]
    force: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Init(init) => run_init(&init)?,
        Command::Issue(issue) => run_issue(&issue)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn run_init(args: &Init) -> anyhow::Result<()> {
    let tree = Tree::new(&args.dir);
    init(
        &tree,
        Lifetime::years(args.ca_years),
        Lifetime::days(args.days),
        args.force,
    )?;
    println!("Made three certificate authorities in {}:", tree.dir().display());
    for kind in Kind::ALL {
        println!(
            "  {:<12} {}",
            kind.directory(),
            tree.authority(kind).cert.display()
        );
    }
    println!(
        "An administrator's certificates: {} and {}",
        tree.admin().cert.display(),
        tree.etcd_admin().cert.display()
    );
    println!(
        "Next, for each master: barque pki issue --dir {} --master NAME --host IP",
        tree.dir().display()
    );
    Ok(())
}

fn run_issue(args: &Issue) -> anyhow::Result<()> {
    let tree = Tree::new(&args.dir);
    let lifetime = Lifetime::days(args.days);
    if args.master.is_none() && !args.host.is_empty() {
        bail!("--host goes with --master");
    }
    if let Some(name) = &args.master {
        let hosts: anyhow::Result<Vec<Host>> = args.host.iter().map(|host| Host::parse(host)).collect();
        let paths = issue_master(&tree, name, &hosts?, lifetime, args.force)?;
        println!("Copy to the host of {name}: {}", paths.dir.display());
        return Ok(());
    }
    if let Some(name) = &args.etcd_user {
        let pair = issue_etcd_user(&tree, name, lifetime, args.force)?;
        println!("{}\n{}", pair.cert.display(), pair.key.display());
    }
    if let Some(name) = &args.user {
        let pair = issue_user(&tree, name, &args.group, lifetime, args.force)?;
        println!("{}\n{}", pair.cert.display(), pair.key.display());
        if let Some(server) = &args.server {
            let path = tree.user_kubeconfig(name);
            Kubeconfig {
                cluster: "barque",
                user: name,
                server,
            }
            .write(&tree, &pair, &path)?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// The three authorities, and an administrator's certificate of the two that have clients.
pub fn init(tree: &Tree, ca: Lifetime, leaf: Lifetime, force: bool) -> anyhow::Result<()> {
    for kind in Kind::ALL {
        authority::create(kind, &tree.authority(kind), ca, force)?;
    }
    issue_etcd_user(tree, tree::ADMIN, leaf, force)?;
    issue_user(tree, tree::ADMIN, &["system:masters".to_owned()], leaf, force)?;
    Ok(())
}
