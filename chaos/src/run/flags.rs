//! The command line: [`Flags`], and what it comes down to: [`Settings`].

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;
use barque_chaos::{cluster, lan};
use clap::{Args, ValueEnum};

use super::{duration, kind::Kind};

/// Starts a cluster of real processes, uses it, breaks it in every way that is asked for, and checks what the clients
/// saw. Exits with 0 only if every check passed and every fault was seen to happen.
#[derive(Debug, Args)]
pub struct Flags {
    /// What faults and traffic are drawn from, though not when exactly they happen; drawn and printed if not given
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on; every kind is inflicted at least once, however long that takes
    #[arg(long, default_value = "120s", value_parser = duration::parse)]
    duration: Duration,
    /// From the beginning of one fault to that of the next, at least
    #[arg(long, default_value = "0s", value_parser = duration::parse)]
    every: Duration,
    /// Members of the cluster
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=7))]
    members: u8,
    /// Whose program the members run
    #[arg(long, value_enum, default_value = "barque")]
    program: Program,
    /// Kinds of fault, separated by commas, or `all` that this program and machine allow
    #[arg(long, default_value = "all", value_delimiter = ',')]
    faults: Vec<String>,
    /// What clients do; if not given, all that the program serves
    #[arg(long, value_enum, value_delimiter = ',')]
    traffic: Vec<Traffic>,
    /// Where SEED.html, SEED.md and SEED.json are written
    #[arg(long, default_value = "chaos-report")]
    report: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Program {
    Barque,
    /// The `etcd` on the PATH
    Etcd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Traffic {
    /// Reads, writes, transactions
    Kv,
    Watch,
    Lease,
    Compact,
    /// Objects of the Kubernetes API; everything goes over TLS then
    Kubernetes,
}

#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    pub duration: Duration,
    pub every: Duration,
    pub members: usize,
    pub program: cluster::Kind,
    pub faults: Vec<Kind>,
    pub traffic: Vec<Traffic>,
    pub report: PathBuf,
    /// The command that does this again.
    pub command: String,
}

impl Flags {
    pub fn settle(&self) -> anyhow::Result<Settings> {
        let program = match self.program {
            Program::Barque => cluster::Kind::Barque,
            Program::Etcd => cluster::Kind::Etcd,
        };
        let members = usize::from(self.members);
        let seed = self.seed.unwrap_or_else(|| rand::random::<u32>().into());
        let faults = faults(&self.faults, program, members)?;
        let traffic = traffic(&self.traffic, program)?;
        Ok(Settings {
            seed,
            duration: self.duration,
            every: self.every,
            members,
            program,
            command: self.command(seed, &faults, &traffic),
            faults,
            traffic,
            report: self.report.clone(),
        })
    }

    fn command(&self, seed: u64, faults: &[Kind], traffic: &[Traffic]) -> String {
        let faults: Vec<String> = faults.iter().map(|kind| kind.name()).collect();
        let mut words = vec![
            "barque chaos run".to_owned(),
            format!("--seed {seed} --duration {}s", self.duration.as_secs()),
            format!("--members {} --program {}", self.members, name(self.program)),
            format!("--faults {}", faults.join(",")),
            format!(
                "--traffic {}",
                traffic.iter().copied().map(name).collect::<Vec<_>>().join(",")
            ),
        ];
        if !self.every.is_zero() {
            words.push(format!("--every {}s", self.every.as_secs()));
        }
        words.join(" ")
    }
}

fn name<T: ValueEnum>(value: T) -> String {
    let value = value.to_possible_value().expect("no value is hidden");
    value.get_name().to_owned()
}

fn traffic(asked: &[Traffic], program: cluster::Kind) -> anyhow::Result<Vec<Traffic>> {
    let serves = |traffic: &Traffic| program == cluster::Kind::Barque || *traffic != Traffic::Kubernetes;
    if asked.is_empty() {
        return Ok(Traffic::value_variants().iter().copied().filter(serves).collect());
    }
    if let Some(other) = asked.iter().find(|traffic| !serves(traffic)) {
        bail!("{program:?} does not serve {}", name(*other));
    }
    Ok(asked.to_vec())
}

/// `all` leaves out, and says so, what cannot be done here; a fault asked for by name is never left out.
fn faults(asked: &[String], program: cluster::Kind, members: usize) -> anyhow::Result<Vec<Kind>> {
    if asked == ["all"] {
        let (can, cannot): (Vec<Kind>, Vec<Kind>) = Kind::value_variants()
            .iter()
            .partition(|kind| why_not(**kind, program, members).is_none());
        for kind in cannot {
            let why = why_not(kind, program, members).unwrap_or_default();
            println!("without {}: {why}", kind.name());
        }
        return Ok(can);
    }
    let mut kinds = Vec::new();
    for name in asked
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
    {
        let kind = match Kind::from_str(name, false) {
            Ok(kind) => kind,
            Err(_) => bail!("{name:?} is no fault; there are {}, and all", known()),
        };
        if let Some(why) = why_not(kind, program, members) {
            bail!("{name} cannot be done: {why}");
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok(kinds)
}

fn known() -> String {
    let names: Vec<String> = Kind::value_variants().iter().map(|kind| kind.name()).collect();
    names.join(", ")
}

fn why_not(kind: Kind, program: cluster::Kind, members: usize) -> Option<String> {
    if let Some(why) = kind.unfit_for(program) {
        return Some(why.to_owned());
    }
    let device = Path::new("/dev/fuse");
    if kind.needs_disks() && !device.exists() {
        return Some(format!("there is no {}", device.display()));
    }
    if (kind.needs_lan() || kind == Kind::WipeAndReplace) && members < 3 {
        return Some("it needs three members".to_owned());
    }
    if matches!(kind, Kind::KillFollower | Kind::StopFollower) && members < 2 {
        return Some("it needs a follower".to_owned());
    }
    match kind.needs_lan() {
        true => lan::impossible(),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_that_the_program_serves() {
        assert!(
            traffic(&[], cluster::Kind::Barque)
                .unwrap()
                .contains(&Traffic::Kubernetes)
        );
        assert!(
            !traffic(&[], cluster::Kind::Etcd)
                .unwrap()
                .contains(&Traffic::Kubernetes)
        );
        assert!(traffic(&[Traffic::Kubernetes], cluster::Kind::Etcd).is_err());
    }

    #[test]
    fn faults_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let barque = cluster::Kind::Barque;
        let kinds = faults(&names(&["kill-all", "kill-leader", "kill-all"]), barque, 3).unwrap();
        assert_eq!(kinds, [Kind::KillAll, Kind::KillLeader]);
        let error = faults(&names(&["meteor"]), barque, 3).unwrap_err().to_string();
        assert!(
            error.contains("\"meteor\" is no fault") && error.contains("kill-leader"),
            "{error}"
        );
        let error = faults(&names(&["full-disk"]), cluster::Kind::Etcd, 3).unwrap_err();
        assert!(error.to_string().contains("full-disk cannot be done"), "{error}");
        assert!(faults(&names(&["kill-follower"]), barque, 1).is_err());
        assert!(faults(&[], barque, 3).unwrap().is_empty());
    }
}
