//! On what the figures were measured: [`Machine`].

use std::{fs::File, os::unix::fs::FileExt, path::Path, process::Command, time::Instant};

use serde::Serialize;

use crate::latency::Latency;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cores: usize,
    pub processor: String,
    pub kernel: String,
    pub memory_gib: f64,
    pub file_system: String,
    /// Of a 4 KiB overwrite and fdatasync in the data's directory.
    pub fdatasync_p50_ms: f64,
    pub fdatasync_p99_ms: f64,
    pub etcd: String,
    pub barque: String,
}

impl Machine {
    pub fn read(dir: &Path) -> anyhow::Result<Machine> {
        let sync = fdatasync(dir)?;
        Ok(Machine {
            cores: std::thread::available_parallelism()?.get(),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            memory_gib: memory_gib(),
            file_system: file_system(dir)?,
            fdatasync_p50_ms: sync.quantile_ms(0.5),
            fdatasync_p99_ms: sync.quantile_ms(0.99),
            etcd: version("etcd", "--version"),
            barque: barque_chaos::cluster::barque_binary().map_or_else(
                |_| "not built".to_owned(),
                |path| version(&path.to_string_lossy(), "version"),
            ),
        })
    }

    pub fn header(&self) -> String {
        format!(
            "{} cores ({}), Linux {}, {:.0} GiB, {}, fdatasync p50 {:.2} ms p99 {:.2} ms\n{}; {}",
            self.cores,
            self.processor,
            self.kernel,
            self.memory_gib,
            self.file_system,
            self.fdatasync_p50_ms,
            self.fdatasync_p99_ms,
            self.barque,
            self.etcd,
        )
    }
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gib() -> f64 {
    let total = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let kib: f64 = total.trim_end_matches(" kB").parse().unwrap_or(0.0);
    kib / (1 << 20) as f64
}

/// Type and device of the mount that holds `dir`.
fn file_system(dir: &Path) -> anyhow::Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let holding = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (device, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        dir.starts_with(at)
            .then_some((at.len(), format!("{kind} on {device}")))
    });
    Ok(holding
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "unknown".into(), |(_, name)| name))
}

fn fdatasync(dir: &Path) -> anyhow::Result<Latency> {
    let file: File = tempfile::tempfile_in(dir)?;
    let block = [7; 4096];
    for number in 0..64 {
        file.write_all_at(&block, number * 4096)?;
    }
    file.sync_all()?;
    let mut latency = Latency::new();
    for number in 0..300 {
        let start = Instant::now();
        file.write_all_at(&block, (number % 64) * 4096)?;
        file.sync_data()?;
        latency.record(start.elapsed());
    }
    Ok(latency)
}

fn version(program: &str, argument: &str) -> String {
    match Command::new(program).arg(argument).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout)
            .lines()
            .next()
            .unwrap_or("no version")
            .to_owned(),
        Err(error) => format!("{program}: {error}"),
    }
}
