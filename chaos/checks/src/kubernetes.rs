//! Watchers of the Kubernetes API: resourceVersions never back, no event missed or repeated, whichever master they ask;
//! and no watch ended by a master without a reason.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    counts,
    history::{History, KubernetesError, KubernetesRecord, KubernetesType, KubernetesWrite, Revision},
    model::Compactions,
    verdict::{Check, Findings, Violation},
};

/// What is needed was compacted.
const GONE: u16 = 410;
/// A member that leads is noted up to so much later, and elections take their time before.
const AROUND_A_LEADER_US: u64 = 5_000_000;

pub fn check(history: &History) -> Check {
    let mut findings = Findings::new("kubernetes watches");
    findings.count(history.kubernetes.len() + history.kubernetes_writes.len());
    check_writes(history, &mut findings);
    check_errors(history, &mut findings);
    let mut watchers: BTreeMap<(&str, u32), Watcher<'_>> = BTreeMap::new();
    for record in &history.kubernetes {
        let watcher = watchers.entry((&record.selection, record.watcher)).or_default();
        if let Some(text) = watcher.tell(record) {
            findings.add(said(record, text));
        }
    }
    let watchers: Vec<Named<'_>> = watchers.into_iter().collect();
    for together in watchers.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
        let selection = together[0].0.0;
        let writes = history.kubernetes_writes.iter();
        let writes: Vec<_> = writes.filter(|write| write.selection == selection).collect();
        check_gaps(together, &writes, &mut findings);
    }
    findings.done()
}

/// Two changes never make the same resourceVersion.
fn check_writes(history: &History, findings: &mut Findings) {
    let mut by_version: BTreeMap<Revision, &KubernetesWrite> = BTreeMap::new();
    for write in &history.kubernetes_writes {
        let first = *by_version.entry(write.resource_version).or_insert(write);
        if first != write {
            let text = format!(
                "changes of {} by writer {} and of {} by writer {} were acknowledged with the same resourceVersion",
                first.name, first.writer, write.name, write.writer
            );
            findings.add(Violation::new(text).at(write.resource_version));
        }
    }
}

/// Members compact what clients ask for and nothing else, as long as `--auto-compaction-retention` is not given to them,
/// which no run does. A server's error is forgiven while members are in trouble.
fn check_errors(history: &History, findings: &mut Findings) {
    let compactions = Compactions::new(history);
    findings.count(history.kubernetes_errors.len());
    for error in &history.kubernetes_errors {
        let revision = error.resource_version;
        let why = match error.code {
            GONE if compactions.were_asked_for(revision + 1, error.time) => continue,
            GONE => "ended as compacted, which nobody had asked for",
            0 => "ended with what is no event",
            500.. if is_in_trouble(history, error.time) => continue,
            _ => "ended with an error",
        };
        let KubernetesError {
            watcher,
            master,
            selection,
            text,
            ..
        } = error;
        let text = format!("watcher {watcher} of {selection} at master {master}: {why}: {text}");
        findings.add(Violation::new(text).at(revision));
    }
}

/// A fault is felt, or the leader changes.
fn is_in_trouble(history: &History, time: u64) -> bool {
    let mut leaders = history.leaders.iter();
    !counts::is_quiet(history, time, time)
        || leaders.any(|leader| leader.time.abs_diff(time) <= AROUND_A_LEADER_US)
}

fn said(record: &KubernetesRecord, text: impl std::fmt::Display) -> Violation {
    let KubernetesRecord {
        watcher,
        master,
        selection,
        name,
        ..
    } = record;
    let text = format!(
        "watcher {watcher} of {selection} at master {master}: {text} ({:?} {name})",
        record.kind
    );
    Violation::new(text).at(record.resource_version)
}

/// (selection, watcher)
type Named<'h> = ((&'h str, u32), Watcher<'h>);

/// What a watcher of one selection was told.
#[derive(Default)]
struct Watcher<'h> {
    newest: Revision,
    /// Uids by name, once a list has told all of them.
    objects: Option<BTreeMap<&'h str, &'h str>>,
    /// The last that was told of each object by name, by whatever list or watch.
    latest: BTreeMap<&'h str, &'h KubernetesRecord>,
    /// Stretches without a list in between.
    stretches: Vec<Stretch<'h>>,
}

/// What was told after `after` and up to `until`.
#[derive(Default)]
struct Stretch<'h> {
    after: Revision,
    until: Revision,
    events: Vec<&'h KubernetesRecord>,
}

impl<'h> Watcher<'h> {
    fn tell(&mut self, record: &'h KubernetesRecord) -> Option<String> {
        let revision = record.resource_version;
        let newest = self.newest;
        if record.kind == KubernetesType::Item {
            self.objects
                .get_or_insert_default()
                .insert(&record.name, &record.uid);
            let outdated = self.outdated(record);
            let too_new = (revision > newest).then(|| format!("newer than its list of {newest}"));
            return too_new.or(outdated);
        }
        self.newest = newest.max(revision);
        match record.kind {
            KubernetesType::Listed => {
                self.objects = Some(BTreeMap::new());
                self.stretches.push(Stretch {
                    after: revision,
                    until: revision,
                    events: Vec::new(),
                });
                (revision < newest).then(|| format!("a list went back from {newest}"))
            }
            KubernetesType::Bookmark => {
                self.reach(revision);
                (revision < newest).then(|| format!("a bookmark went back from {newest}"))
            }
            _ if revision <= newest && newest > 0 => {
                Some(format!("an event again, or too late, after {newest}"))
            }
            _ => {
                self.reach(revision).events.push(record);
                self.latest.insert(&record.name, record);
                self.change(record)
            }
        }
    }

    /// A list must not show an object as it was before what this watcher has been told of it.
    fn outdated(&mut self, item: &'h KubernetesRecord) -> Option<String> {
        let known = self.latest.insert(&item.name, item)?;
        let version = known.resource_version;
        let is_outdated = match known.kind {
            KubernetesType::Deleted => item.resource_version <= version,
            _ => item.resource_version < version,
        };
        is_outdated.then(|| format!("listed as it was before {version}, of which the watcher was told"))
    }

    /// The current stretch; one that begins with an event says nothing of what was before it.
    fn reach(&mut self, revision: Revision) -> &mut Stretch<'h> {
        if self.stretches.is_empty() {
            self.stretches.push(Stretch {
                after: revision - 1,
                ..Stretch::default()
            });
        }
        let last = self.stretches.len() - 1;
        let stretch = &mut self.stretches[last];
        stretch.until = stretch.until.max(revision);
        stretch
    }

    fn change(&mut self, record: &'h KubernetesRecord) -> Option<String> {
        let objects = self.objects.as_mut()?;
        let known = match record.kind {
            KubernetesType::Deleted => objects.remove(record.name.as_str()),
            _ => objects.insert(&record.name, &record.uid),
        };
        match (record.kind, known) {
            (KubernetesType::Added, Some(uid)) => Some(format!("added, and was there with uid {uid}")),
            (KubernetesType::Added, None) => None,
            (_, None) => Some("an object that was never added".to_owned()),
            (_, Some(uid)) => (uid != record.uid).then(|| format!("uid {} instead of {uid}", record.uid)),
        }
    }
}

/// Whatever one watcher was told, or was acknowledged to a writer, every watcher of the same selection was told that
/// looked at the time.
fn check_gaps(watchers: &[Named<'_>], writes: &[&KubernetesWrite], findings: &mut Findings) {
    let mut all: BTreeMap<Revision, BTreeSet<Told<'_>>> = BTreeMap::new();
    for write in writes {
        all.entry(write.resource_version)
            .or_default()
            .insert(Told::of(&write.name, &write.uid, write.kind));
    }
    let stretches = watchers.iter().flat_map(|(_, watcher)| &watcher.stretches);
    for event in stretches.flat_map(|stretch| &stretch.events) {
        all.entry(event.resource_version)
            .or_default()
            .insert(Told::new(event));
    }
    for ((selection, id), watcher) in watchers {
        for (revision, event) in watcher.stretches.iter().flat_map(|stretch| stretch.gaps(&all)) {
            let text = format!(
                "watcher {id} of {selection} was not told: {} {}",
                event.kind, event.name
            );
            findings.add(Violation::new(text).at(revision));
        }
    }
}

impl<'h> Stretch<'h> {
    /// What others were told in the meantime and this one was not.
    fn gaps(&self, all: &BTreeMap<Revision, BTreeSet<Told<'h>>>) -> Vec<(Revision, Told<'h>)> {
        if self.until <= self.after {
            return Vec::new();
        }
        let told = self
            .events
            .iter()
            .map(|event| (event.resource_version, Told::new(event)));
        let told: BTreeSet<(Revision, Told<'_>)> = told.collect();
        let meanwhile = all.range(self.after + 1..=self.until);
        let meanwhile =
            meanwhile.flat_map(|(revision, events)| events.iter().map(|event| (*revision, *event)));
        meanwhile.filter(|event| !told.contains(event)).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Told<'h> {
    name: &'h str,
    uid: &'h str,
    kind: &'static str,
}

impl<'h> Told<'h> {
    fn new(record: &'h KubernetesRecord) -> Told<'h> {
        Told::of(&record.name, &record.uid, record.kind)
    }

    fn of(name: &'h str, uid: &'h str, kind: KubernetesType) -> Told<'h> {
        Told {
            name,
            uid,
            kind: match kind {
                KubernetesType::Added => "added",
                KubernetesType::Modified => "modified",
                KubernetesType::Deleted => "deleted",
                KubernetesType::Listed | KubernetesType::Item | KubernetesType::Bookmark => "",
            },
        }
    }
}
