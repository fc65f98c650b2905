//! Many seeds, each in a process of its own, and what they amount to.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    io,
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::Instant,
};

use barque_checks::{report, verdict::Verdict};
use serde_json::{Value, json};

use crate::{Flags, run::Ran};

/// What a run tells the sweep, as one line of JSON.
pub struct Line(Value);

impl Line {
    pub fn of(seed: u64, ran: &Ran) -> Line {
        let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
        let seen = ran.history.faults.iter().filter(|fault| fault.observed.is_some());
        seen.for_each(|fault| *faults.entry(&fault.kind).or_default() += 1);
        let failed = ran.checks.iter().filter(|check| !check.passed());
        Line(json!({
            "seed": seed,
            "verdict": verdict(&ran.verdict),
            "failed": failed.map(|check| check.name.clone()).collect::<Vec<_>>(),
            "simulated_us": ran.simulated_us,
            "operations": ran.history.operations.len(),
            "events": ran.checks.iter().filter(|check| check.name.starts_with("watch")).map(|check| check.checked).sum::<u64>(),
            "faults": faults,
            "digest": digest(ran),
        }))
    }

    pub fn broken(seed: u64, error: &str) -> Line {
        Line(json!({ "seed": seed, "verdict": "broken", "failed": [error] }))
    }

    pub fn encode(&self) -> String {
        self.0.to_string()
    }

    pub fn passed(&self) -> bool {
        self.0["verdict"] == "passed"
    }

    /// A check found something, as opposed to nothing decided, or a run that came to no end.
    #[cfg(feature = "planted")]
    pub fn failed(&self) -> bool {
        self.0["verdict"] == "failed"
    }

    pub fn seed(&self) -> u64 {
        self.number("seed")
    }

    /// The checks that did not pass.
    pub fn why(&self) -> String {
        let failed = self.0["failed"].as_array().into_iter().flatten();
        let failed: Vec<&str> = failed.filter_map(Value::as_str).collect();
        failed.join(", ")
    }

    fn number(&self, key: &str) -> u64 {
        self.0[key].as_u64().unwrap_or(0)
    }
}

fn verdict(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
        Verdict::Undecided { .. } => "undecided",
    }
}

/// The same for two runs that did the same.
fn digest(ran: &Ran) -> String {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&ran.history)
        .unwrap_or_default()
        .hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

pub fn describe(ran: &Ran) -> String {
    let mut text = format!("{}\n", ran.history.description);
    for fault in &ran.history.faults {
        let seen = fault.observed.as_deref().unwrap_or("nothing was seen of it");
        let (from, until) = (fault.from / 1000, fault.until / 1000);
        text += &format!(
            "{from:>8} ms to {until:>8} ms  {} of {:?}: {seen}\n",
            fault.kind, fault.members
        );
    }
    for check in &ran.checks {
        text += &format!("{check}\n");
    }
    text
}

/// The kinds that were asked for, as they are asked for.
fn faults(flags: &Flags) -> Option<String> {
    let names: Vec<&str> = flags.faults.iter().map(|kind| kind.name()).collect();
    (!names.is_empty()).then(|| names.join(","))
}

/// Runs this seed again.
pub fn command(flags: &Flags, seed: u64) -> String {
    let plant = flags.plant.iter().map(|bug| format!(" --plant {bug}"));
    let mut command = format!("barque chaos sim --seed {seed} --duration {}", flags.duration);
    if let Some(faults) = faults(flags) {
        command += &format!(" --faults '{faults}'");
    }
    plant.fold(command, |command, plant| command + &plant)
}

/// The history, and what the checks say of it as a page and as text; returns the page's path.
pub fn write_report(flags: &Flags, seed: u64, ran: &Ran) -> io::Result<PathBuf> {
    fs::create_dir_all(&flags.report)?;
    let history = serde_json::to_vec(&ran.history).map_err(io::Error::other)?;
    fs::write(flags.report.join(format!("{seed}.json")), history)?;
    let command = command(flags, seed);
    let text = report::markdown(&ran.history, &ran.checks, &command);
    fs::write(flags.report.join(format!("{seed}.md")), text)?;
    let page = flags.report.join(format!("{seed}.html"));
    fs::write(&page, report::html(&ran.history, &ran.checks, &command))?;
    Ok(page)
}

pub fn child(flags: &Flags, seed: u64, plant: Option<&str>) -> Line {
    let ran = std::env::current_exe().and_then(|program| {
        Command::new(program)
            .args([
                "--child",
                "--seed",
                &seed.to_string(),
                "--duration",
                &flags.duration.to_string(),
            ])
            .args(plant.iter().flat_map(|bug| ["--plant", bug]))
            .args(faults(flags).iter().flat_map(|names| ["--faults", names]))
            .arg("--report")
            .arg(&flags.report)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
    });
    let output = match ran {
        Ok(output) => output,
        Err(error) => return Line::broken(seed, &error.to_string()),
    };
    let printed = String::from_utf8_lossy(&output.stdout);
    let line = printed
        .lines()
        .last()
        .and_then(|line| serde_json::from_str(line).ok());
    line.map(Line).unwrap_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().rev().take(5).collect();
        Line::broken(seed, &format!("{}: {}", output.status, said.join(" | ")))
    })
}

/// Which seeds, and with which bug planted.
pub struct Sweep<'a> {
    pub flags: &'a Flags,
    pub first: u64,
    pub count: u64,
    /// Ends with the first line of which this is so.
    pub until: Option<fn(&Line) -> bool>,
    pub plant: Option<&'a str>,
}

impl Sweep<'_> {
    /// In the order in which they ended.
    pub fn run(&self, mut told: impl FnMut(&Line) + Send) -> Vec<Line> {
        let (next, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let (tx, lines) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.flags.jobs.max(1) {
                let (tx, next, ended) = (tx.clone(), &next, &ended);
                scope.spawn(move || {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= self.count || ended.load(Ordering::Relaxed) {
                            return;
                        }
                        let line = child(self.flags, self.first.wrapping_add(number), self.plant);
                        ended.fetch_or(self.until.is_some_and(|until| until(&line)), Ordering::Relaxed);
                        // The receiver outlives the threads.
                        let _ = tx.send(line);
                    }
                });
            }
            drop(tx);
            lines.into_iter().inspect(&mut told).collect()
        })
    }
}

pub fn run(flags: &Flags) -> ExitCode {
    let began = Instant::now();
    let drawn = || u64::from(rand::random::<u32>());
    let sweep = Sweep {
        flags,
        first: flags.first_seed.unwrap_or_else(drawn),
        count: flags.seeds,
        until: flags.until_found.then_some(|line| !line.passed()),
        plant: flags.plant.as_deref(),
    };
    let lines = sweep.run(|line: &Line| {
        if !line.passed() {
            println!("{}", line.encode());
            println!("  {}: {}", line.why(), command(flags, line.seed()));
        }
    });
    summarize(sweep.first, &lines, began.elapsed().as_secs_f64())
}

fn summarize(first: u64, lines: &[Line], seconds: f64) -> ExitCode {
    let total = |key: &str| lines.iter().map(|line| line.number(key)).sum::<u64>();
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines {
        for (kind, count) in line.0["faults"].as_object().into_iter().flatten() {
            *faults.entry(kind.clone()).or_default() += count.as_u64().unwrap_or(0);
        }
    }
    let count = |wanted: &str| lines.iter().filter(|line| line.0["verdict"] == wanted).count();
    println!(
        "seeds {first} to {}: {} passed, {} failed, {} undecided, {} broken",
        first + (lines.len() as u64).saturating_sub(1),
        count("passed"),
        count("failed"),
        count("undecided"),
        count("broken"),
    );
    println!(
        "{:.2} simulated hours in {seconds:.0} s ({:.2} seeds per second), {} operations, {} events checked",
        total("simulated_us") as f64 / 3.6e9,
        lines.len() as f64 / seconds,
        total("operations"),
        total("events"),
    );
    let faults: Vec<String> = faults
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    println!("faults observed: {}", faults.join(", "));
    match lines.iter().all(Line::passed) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
