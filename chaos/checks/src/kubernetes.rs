//! Watchers of the Kubernetes API: resourceVersions never back, no event missed or repeated, whichever master they ask.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    history::{History, KubernetesRecord, KubernetesType, KubernetesWrite, Revision},
    verdict::{Check, Findings, Violation},
};

pub fn check(history: &History) -> Check {
    let mut findings = Findings::new("kubernetes watches");
    findings.count(history.kubernetes.len() + history.kubernetes_writes.len());
    check_writes(history, &mut findings);
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
            return (revision > newest).then(|| format!("newer than its list of {newest}"));
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
                self.change(record)
            }
        }
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
