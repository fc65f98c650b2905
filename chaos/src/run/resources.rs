//! What members hold, as the kernel counts it, before a run and after it: [`Resources`].

use std::{fs, path::PathBuf};

use anyhow::Context;
use barque_chaos::cluster::Cluster;
use barque_checks::{Check, Findings, Violation};

/// A member has read and written since, and may keep files and threads for a while.
const MORE_BYTES: u64 = 192 << 20;
const MORE_DESCRIPTORS: u64 = 64;
const MORE_THREADS: u64 = 24;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resources {
    pub resident_bytes: u64,
    pub descriptors: u64,
    pub threads: u64,
}

impl Resources {
    pub fn of(pid: i32) -> anyhow::Result<Resources> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(proc.join("status")).with_context(|| format!("process {pid}"))?;
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_whitespace().next()?.parse::<u64>().ok()
        };
        let missing = || format!("/proc/{pid}/status without memory or threads");
        Ok(Resources {
            resident_bytes: field("VmRSS:").with_context(missing)? << 10,
            descriptors: fs::read_dir(proc.join("fd"))?.count() as u64,
            threads: field("Threads:").with_context(missing)?,
        })
    }

    pub fn of_all(cluster: &Cluster) -> anyhow::Result<Vec<Resources>> {
        let of = |index: usize| {
            let pid = cluster.pid(index);
            Resources::of(pid.with_context(|| format!("{} does not run", cluster.name(index)))?)
        };
        (0..cluster.len()).map(of).collect()
    }
}

impl std::fmt::Display for Resources {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mebibytes = self.resident_bytes >> 20;
        let (descriptors, threads) = (self.descriptors, self.threads);
        write!(
            out,
            "{mebibytes} MiB, {descriptors} descriptors, {threads} threads"
        )
    }
}

/// Without clients, what members hold is about what it was before there were any.
pub fn check(before: &[Resources], after: &[Resources]) -> Check {
    let mut findings = Findings::new("resources back to the baseline");
    findings.count(after.len());
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        let grew = after.resident_bytes > before.resident_bytes + MORE_BYTES
            || after.descriptors > before.descriptors + MORE_DESCRIPTORS
            || after.threads > before.threads + MORE_THREADS;
        if grew {
            findings.add(Violation::new(format!(
                "member {}: before {before}; after {after}",
                index + 1
            )));
        }
    }
    if before.len() != after.len() {
        findings.undecided("not every member could be looked at");
    }
    findings.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let own = Resources::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(
            own.resident_bytes > 0 && own.descriptors > 0 && own.threads > 0,
            "{own}"
        );
    }

    #[test]
    fn a_leak_is_found() {
        let before = Resources {
            resident_bytes: 50 << 20,
            descriptors: 100,
            threads: 20,
        };
        let leaked = Resources {
            descriptors: 1000,
            ..before
        };
        assert!(check(&[before, before], &[before, before]).passed());
        assert!(check(&[before, before], &[before, leaked]).failed());
        assert!(!check(&[before, before], &[before]).passed());
    }
}
