//! Whether members come back with all that they had served: [`Lives`].

use std::{collections::BTreeMap, sync::Arc};

use barque_checks::{Check, Findings, Violation};
use parking_lot::Mutex;

use crate::network::HostId;

/// How far each member was when a life ended, and when the next one began to serve. Clients see it only when they ask
/// at the right moment.
#[derive(Clone, Default)]
pub struct Lives(Arc<Mutex<Record>>);

#[derive(Default)]
struct Record {
    /// The revision that was served last.
    heads: BTreeMap<HostId, i64>,
    losses: BTreeMap<HostId, u32>,
    came_back: usize,
    went_back: Vec<String>,
}

impl Lives {
    pub fn ended(&self, member: HostId, head: i64) {
        self.0.lock().heads.insert(member, head);
    }

    /// What it had is gone: from here on it is another member, or one that does not know how far it had served.
    pub fn lost_data(&self, member: HostId) {
        let mut record = self.0.lock();
        record.heads.remove(&member);
        *record.losses.entry(member).or_default() += 1;
    }

    /// How often its data was lost so far: what it answers alone goes back at no other time.
    pub fn losses(&self, member: HostId) -> u32 {
        self.0.lock().losses.get(&member).copied().unwrap_or(0)
    }

    /// It serves clients from now on.
    pub fn began_to_serve(&self, member: HostId, head: i64) {
        let mut record = self.0.lock();
        let Some(before) = record.heads.remove(&member) else {
            return;
        };
        record.came_back += 1;
        if head < before {
            let text = format!("member {member} had served revision {before}, and came back with {head}");
            record.went_back.push(text);
        }
    }

    pub fn check(&self) -> Check {
        let record = self.0.lock();
        let mut findings = Findings::new("members come back with what they had");
        findings.count(record.came_back);
        findings.add_all(record.went_back.iter().map(Violation::new));
        findings.done()
    }
}
