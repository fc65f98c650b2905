//! Whether members hold the same rows: [`check`].
//!
//! The chained hash that members are compared by otherwise covers what commands did, not what lies on the disks: a row
//! that was lost in a snapshot or damaged later leaves it as it is, and so does any row of an index. Members look for such
//! rows by themselves, now and then; here the same is looked for without their code.
//!
//! Compared is all that does not depend on how far a member is with what it does in the background: live records as they are
//! read, rows of indices and leases as they lie, changes above the compact revision, and by HashKV all versions that can
//! still be read, wherever they lie.

use std::sync::Arc;

use barque_checks::{Check, Findings, Violation};
use barque_proto::command::Range;
use barque_store::{
    KeyValue, RangeResult, ReadError, Store, StoreError,
    kv::{Bounds, Family, View},
};

use crate::network::HostId;

/// Families of which every row counts.
const WHOLE: [Family; 3] = [Family::Idx, Family::Lease, Family::LeaseKey];

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// What one member holds.
struct Contents {
    member: HostId,
    compacted: i64,
    live: RangeResult,
    families: Vec<(Family, Rows)>,
    /// etcd's hash over what can be read at the newest revision.
    hash: Result<(u32, i64), String>,
}

/// Of members that have applied the same: whoever does not run is left out.
pub fn check(members: &[(HostId, Store)]) -> Check {
    let mut findings = Findings::new("members hold the same rows");
    let mut all = Vec::new();
    for (member, store) in members {
        match Contents::of(*member, store) {
            Ok(contents) => all.push(contents),
            Err(error) => findings.add(Violation::new(format!("member {member} cannot be read: {error}"))),
        }
    }
    for pair in all.windows(2) {
        pair[0].compare(&pair[1], &mut findings);
    }
    findings.done()
}

impl Contents {
    fn of(member: HostId, store: &Store) -> Result<Contents, ReadError> {
        let reader = store.reader();
        let (head, view) = (store.head(), store.rows());
        let compacted = head.compact_revision.0;
        let mut families = Vec::new();
        for family in WHOLE {
            families.push((family, rows(&view, family, |_| true)?));
        }
        let kept = |key: &[u8]| main_revision(key).is_none_or(|main| main > compacted);
        families.push((Family::Log, rows(&view, Family::Log, kept)?));
        let hash = reader.hash_kv(head.revision);
        Ok(Contents {
            member,
            compacted,
            live: reader.range(&all_keys())?,
            families,
            hash: hash
                .map(|(hash, compacted)| (hash, compacted.0))
                .map_err(|error| error.to_string()),
        })
    }

    fn compare(&self, other: &Contents, findings: &mut Findings) {
        let (one, two) = (self.member, other.member);
        let mut differ = |what: String| {
            let text = format!("members {one} and {two} hold different {what}");
            findings.add(Violation::new(text));
        };
        if self.compacted != other.compacted {
            return differ(format!(
                "compact revisions: {} and {}",
                self.compacted, other.compacted
            ));
        }
        if self.hash != other.hash {
            differ(format!(
                "content, by HashKV: {:?} and {:?}",
                self.hash, other.hash
            ));
        }
        if self.live != other.live {
            let (mine, theirs) = (&self.live.kvs, &other.live.kvs);
            let at = (0..mine.len().max(theirs.len())).find(|at| mine.get(*at) != theirs.get(*at));
            let of = |kvs: &[KeyValue]| at.and_then(|at| kvs.get(at).map(|kv| format!("{kv:?}")));
            differ(format!("records: {:?} and {:?}", of(mine), of(theirs)));
        }
        let mut checked = self.live.kvs.len();
        for ((family, mine), (_, theirs)) in self.families.iter().zip(&other.families) {
            checked += mine.len().max(theirs.len());
            if let Some(row) = first_difference(mine, theirs) {
                differ(format!("rows in {}: {row}", family.name()));
            }
        }
        findings.count(checked);
    }
}

fn rows(view: &Arc<dyn View>, family: Family, kept: impl Fn(&[u8]) -> bool) -> Result<Rows, StoreError> {
    let mut cursor = view.cursor(family, Bounds::ALL)?;
    let mut rows = Rows::new();
    while let Some((key, value)) = cursor.row() {
        if kept(key) {
            rows.push((key.to_vec(), value.to_vec()));
        }
        cursor.advance()?;
    }
    Ok(rows)
}

/// Of a row of the log of changes.
fn main_revision(key: &[u8]) -> Option<i64> {
    let main = key.first_chunk::<8>()?;
    Some(i64::from_be_bytes(*main))
}

fn all_keys() -> Range {
    Range {
        key: vec![0u8].into(),
        range_end: vec![0u8].into(),
        ..Range::default()
    }
}

fn first_difference(mine: &Rows, theirs: &Rows) -> Option<String> {
    let at = (0..mine.len().max(theirs.len())).find(|at| mine.get(*at) != theirs.get(*at))?;
    let shown = |rows: &Rows| match rows.get(at) {
        Some((key, value)) => format!(
            "{} = {}",
            String::from_utf8_lossy(key).escape_debug(),
            String::from_utf8_lossy(value).escape_debug()
        ),
        None => "nothing".to_owned(),
    };
    Some(format!("{} and {}", shown(mine), shown(theirs)))
}

#[cfg(test)]
mod tests {
    use barque_store::{
        Entry, EntryBody, LogPosition,
        kv::{Batch, Engine, memory::MemoryEngine},
    };
    use bytes::Bytes;

    use super::*;

    fn version(main: i64) -> Vec<u8> {
        [&main.to_be_bytes()[..], &[0; 4]].concat()
    }

    /// A store whose engine holds these rows besides its own.
    fn store(rows: &[(Family, Vec<u8>, &'static str)]) -> Store {
        let engine = Arc::new(MemoryEngine::new());
        let (first, mut applier) = Store::open_with(engine.clone(), 1 << 10).unwrap();
        let blank = Entry {
            position: LogPosition { term: 1, index: 1 },
            body: EntryBody::Blank,
        };
        applier.apply(&[blank]).unwrap();
        drop((first, applier));
        let mut batch = Batch::default();
        for (family, key, value) in rows {
            batch.put(*family, key.clone().into(), Bytes::from_static(value.as_bytes()));
        }
        engine.write(batch).unwrap();
        Store::open_with(engine, 1 << 10).unwrap().0
    }

    fn found(one: Store, two: Store) -> Vec<String> {
        let check = check(&[(0, one), (1, two)]);
        check
            .violations
            .into_iter()
            .map(|violation| violation.text)
            // The rows of this test are none that a store could read.
            .filter(|text| !text.contains("HashKV"))
            .collect()
    }

    #[test]
    fn one_row_of_one_family_is_found() {
        for family in [Family::Idx, Family::LeaseKey] {
            let row = |value| store(&[(family, b"12345678k".to_vec(), value)]);
            assert_eq!(found(row("a"), row("a")), [""; 0]);
            let said = found(row("a"), row("b"));
            assert!(said[0].contains(family.name()), "{said:?}");
            assert!(!found(row("a"), store(&[])).is_empty());
        }
    }

    #[test]
    fn what_compaction_may_have_removed_does_not_count() {
        let old = store(&[(Family::Log, version(0), "v")]);
        assert_eq!(found(old, store(&[])), [""; 0]);
        let new = store(&[(Family::Log, version(7), "v")]);
        assert!(!found(new, store(&[])).is_empty());
    }
}
