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
/// saw. Exits with 0 only if every check passed and every fault was seen to happen, and with 2 if it was asked for what
/// cannot be.
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
    /// Kinds of fault, separated by commas; or `all`, which stands alone, for those that this program and machine allow
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
    /// Kinds that `all` does not stand for here, each with the reason.
    pub left_out: Vec<String>,
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
        let (faults, left_out) = faults(&self.faults, program, members)?;
        let traffic = traffic(&self.traffic, program)?;
        for kind in &left_out {
            println!("without {kind}");
        }
        Ok(Settings {
            seed,
            duration: self.duration,
            every: self.every,
            members,
            program,
            command: self.command(seed, &faults, &traffic),
            faults,
            left_out,
            traffic,
            report: self.report.clone(),
        })
    }

    fn command(&self, seed: u64, faults: &[Kind], traffic: &[Traffic]) -> String {
        let faults: Vec<String> = faults.iter().map(|kind| kind.name()).collect();
        // Left out, it would stand for all.
        let faults = match faults.is_empty() {
            true => "''".to_owned(),
            false => faults.join(","),
        };
        let mut words = vec![
            "barque chaos run".to_owned(),
            format!("--seed {seed} --duration {}", duration::show(self.duration)),
            format!("--members {} --program {}", self.members, name(self.program)),
            format!("--faults {faults}"),
            format!(
                "--traffic {}",
                traffic.iter().copied().map(name).collect::<Vec<_>>().join(",")
            ),
        ];
        if !self.every.is_zero() {
            words.push(format!("--every {}", duration::show(self.every)));
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
    check_writers(asked)?;
    Ok(asked.to_vec())
}

/// Some traffic is nothing without other that writes.
fn check_writers(asked: &[Traffic]) -> anyhow::Result<()> {
    let has = |traffic| asked.contains(&traffic);
    let writes = has(Traffic::Kv) || has(Traffic::Lease);
    if has(Traffic::Watch) && !writes {
        bail!("--traffic watch needs kv or lease beside it, which write what is watched");
    }
    if has(Traffic::Compact) && !writes && !has(Traffic::Kubernetes) {
        bail!("--traffic compact needs kv, lease or kubernetes beside it, which write what is compacted");
    }
    Ok(())
}

/// `all` leaves out what cannot be done here, each with the reason; a fault asked for by name is never left out.
fn faults(
    asked: &[String],
    program: cluster::Kind,
    members: usize,
) -> anyhow::Result<(Vec<Kind>, Vec<String>)> {
    let names = asked.iter().map(|name| name.trim());
    let names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    if names == ["all"] {
        return Ok(all(program, members));
    }
    if names.contains(&"all") {
        bail!("--faults all stands alone: leave out the other kinds, or name every kind that is wanted");
    }
    let mut kinds = Vec::new();
    for name in names {
        let kind = match Kind::from_str(name, false) {
            Ok(kind) => kind,
            Err(_) => bail!("{name:?} is no fault; there are {}; or all, alone", known()),
        };
        if let Some(why) = why_not(kind, program, members) {
            bail!("{name} cannot be done: {why}");
        }
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Ok((kinds, Vec::new()))
}

fn all(program: cluster::Kind, members: usize) -> (Vec<Kind>, Vec<String>) {
    let (mut can, mut left_out) = (Vec::new(), Vec::new());
    for kind in Kind::value_variants().iter().copied() {
        match why_not(kind, program, members) {
            None => can.push(kind),
            Some(why) => left_out.push(format!("{}: {why}", kind.name())),
        }
    }
    (can, left_out)
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
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    /// As a shell would split it.
    fn settled(line: &str) -> anyhow::Result<Settings> {
        let words = line.split(' ').map(|word| if word == "''" { "" } else { word });
        Line::try_parse_from(words)?.flags.settle()
    }

    #[test]
    fn the_command_does_the_same_again() {
        for line in [
            "run --faults kill-all,kill-leader --duration 500ms --every 1m1ms --traffic kv,compact",
            "run --faults '' --program etcd --members 1 --seed 7",
        ] {
            let settings = settled(line).unwrap();
            let command = settings.command.strip_prefix("barque chaos ").unwrap();
            let again = settled(command).unwrap();
            assert_eq!(format!("{settings:?}"), format!("{again:?}"));
        }
        let settings = settled("run --faults '' --duration 500ms --seed 7 --traffic kv").unwrap();
        assert_eq!(
            settings.command,
            "barque chaos run --seed 7 --duration 500ms --members 3 --program barque --faults '' --traffic kv"
        );
    }

    #[test]
    fn traffic_that_nobody_writes_for() {
        use Traffic::{Compact, Kubernetes, Kv, Lease, Watch};
        let barque = cluster::Kind::Barque;
        for asked in [
            &[Kv][..],
            &[Lease],
            &[Watch, Kv],
            &[Lease, Watch, Compact],
            &[Kubernetes],
            &[Compact, Kubernetes],
        ] {
            assert_eq!(traffic(asked, barque).unwrap(), asked);
        }
        let refused = |asked: &[Traffic]| traffic(asked, barque).unwrap_err().to_string();
        for asked in [&[Watch][..], &[Watch, Compact], &[Watch, Kubernetes]] {
            assert!(refused(asked).contains("watch needs kv or lease"), "{asked:?}");
        }
        assert!(refused(&[Compact]).contains("compact needs kv, lease or kubernetes"));
    }

    #[test]
    fn all_that_can_be_done_and_why_not_the_rest() {
        let asked = ["all".to_owned()];
        let (can, left_out) = faults(&asked, cluster::Kind::Etcd, 1).unwrap();
        assert!(can.contains(&Kind::KillAll) && !can.contains(&Kind::Partition));
        assert_eq!(can.len() + left_out.len(), Kind::value_variants().len());
        let says = |text: &str| left_out.iter().any(|kind| kind == text);
        assert!(says("partial-partition: it needs three members"), "{left_out:?}");
        let asked = ["all".to_owned(), "kill-all".to_owned()];
        let error = faults(&asked, cluster::Kind::Barque, 3).unwrap_err();
        assert!(error.to_string().contains("all stands alone"), "{error}");
    }

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
        let (kinds, left_out) = faults(&names(&["kill-all", "kill-leader", "kill-all"]), barque, 3).unwrap();
        assert_eq!(kinds, [Kind::KillAll, Kind::KillLeader]);
        assert!(left_out.is_empty());
        let error = faults(&names(&["meteor"]), barque, 3).unwrap_err().to_string();
        assert!(
            error.contains("\"meteor\" is no fault") && error.contains("kill-leader"),
            "{error}"
        );
        let error = faults(&names(&["full-disk"]), cluster::Kind::Etcd, 3).unwrap_err();
        assert!(error.to_string().contains("full-disk cannot be done"), "{error}");
        assert!(faults(&names(&["kill-follower"]), barque, 1).is_err());
        assert!(faults(&[], barque, 3).unwrap().0.is_empty());
    }
}
