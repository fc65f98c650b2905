//! How a start is shown: a spinner per process on a terminal, plain lines elsewhere.

use std::{cell::RefCell, collections::HashMap, io::IsTerminal, time::Duration};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::children::PROXY;
use crate::cluster_dir::Cluster;

pub struct Progress {
    bars: Option<HashMap<String, ProgressBar>>,
    /// What was said last of each process, so that plain lines tell changes only.
    said: RefCell<HashMap<String, &'static str>>,
}

impl Progress {
    pub fn new(cluster: &Cluster) -> Self {
        let names = cluster
            .masters
            .iter()
            .map(|master| master.name.as_str())
            .chain([PROXY]);
        let bars = std::io::stderr().is_terminal().then(|| spinners(names));
        Self {
            bars,
            said: RefCell::default(),
        }
    }

    pub fn note(&self, name: &str, what: &'static str) {
        if self.said.borrow_mut().insert(name.to_owned(), what) == Some(what) {
            return;
        }
        match self.bars.as_ref().and_then(|bars| bars.get(name)) {
            Some(bar) => bar.set_message(what),
            None => println!("{name}: {what}"),
        }
    }

    pub fn ready(&self, name: &str) {
        match self.bars.as_ref().and_then(|bars| bars.get(name)) {
            Some(bar) => bar.finish_with_message("ready"),
            None => println!("{name}: ready"),
        }
    }

    pub fn finish(&self) {
        for bar in self
            .bars
            .iter()
            .flat_map(HashMap::values)
            .filter(|bar| !bar.is_finished())
        {
            bar.abandon();
        }
    }
}

fn spinners<'a>(names: impl Iterator<Item = &'a str>) -> HashMap<String, ProgressBar> {
    let group = MultiProgress::new();
    let style = ProgressStyle::with_template("{spinner} {prefix:<10} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = |name: &str| {
        let bar = group.add(
            ProgressBar::new_spinner()
                .with_style(style.clone())
                .with_prefix(name.to_owned()),
        );
        bar.set_message("starting");
        bar.enable_steady_tick(Duration::from_millis(120));
        (name.to_owned(), bar)
    };
    names.map(spinner).collect()
}
