//! The watchers of one stream: their ids and what their client asked for.

use std::collections::HashMap;

use barque_proto::etcd::etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType};
use barque_store::{
    KeyRange, Revision,
    watch::{WatchId, WatchSpec},
};
use bytes::Bytes;

use crate::Error;

/// What the keys of one stream's watchers may measure together: a key may be as large as a request.
const MAX_KEY_BYTES: usize = 64 << 20;

/// The id of answers that concern no watcher, or all.
pub(super) const NO_WATCH: WatchId = -1;

#[derive(Debug, Clone, Copy)]
pub(super) struct Watcher {
    pub prev_kv: bool,
    pub fragment: bool,
    pub progress_notify: bool,
    /// Nothing was sent since the last tick: the next one notifies.
    pub idle: bool,
    /// What its `created` header told.
    pub created_at: Revision,
    key_bytes: usize,
}

pub(super) struct Registry {
    watchers: HashMap<WatchId, Watcher>,
    next_id: WatchId,
    max_watchers: usize,
    key_bytes: usize,
}

impl Registry {
    pub fn new(max_watchers: usize) -> Self {
        Self {
            watchers: HashMap::new(),
            next_id: 0,
            max_watchers,
            key_bytes: 0,
        }
    }

    /// Enters the watcher and says what it is to see; or why not, in the words for `cancel_reason`.
    pub fn create(&mut self, request: WatchCreateRequest) -> Result<WatchSpec, String> {
        if request.start_revision < 0 {
            return Err(Error::Compacted.text());
        }
        let no_put = request.filters().any(|filter| filter == FilterType::Noput);
        let no_delete = request.filters().any(|filter| filter == FilterType::Nodelete);
        // In a watch an empty key is the smallest.
        let key = if request.key.is_empty() {
            Bytes::from_static(b"\0")
        } else {
            request.key
        };
        let range = KeyRange::from_etcd(copied(&key), copied(&request.range_end));
        if range.end.as_ref().is_some_and(|end| *end <= range.start) {
            return Err("mvcc: watcher range is empty".to_owned());
        }
        let key_bytes = range.start.len() + range.end.as_ref().map_or(0, Bytes::len);
        if self.watchers.len() >= self.max_watchers || self.key_bytes + key_bytes > MAX_KEY_BYTES {
            return Err(Error::TooManyRequests.text());
        }
        let id = self.id_for(request.watch_id)?;
        let watcher = Watcher {
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress_notify: request.progress_notify,
            idle: true,
            created_at: Revision(0),
            key_bytes,
        };
        self.watchers.insert(id, watcher);
        self.key_bytes += key_bytes;
        Ok(WatchSpec {
            id,
            range,
            start: Revision(request.start_revision),
            no_put,
            no_delete,
            prev_kv: request.prev_kv,
        })
    }

    /// 0 lets the server choose: the next number that the client has not taken itself.
    fn id_for(&mut self, wanted: WatchId) -> Result<WatchId, String> {
        if wanted != 0 {
            return if self.watchers.contains_key(&wanted) {
                Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
            } else {
                Ok(wanted)
            };
        }
        while self.watchers.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        self.next_id += 1;
        Ok(self.next_id - 1)
    }

    pub fn remove(&mut self, id: WatchId) -> bool {
        let removed = self.watchers.remove(&id);
        self.key_bytes -= removed.map_or(0, |watcher| watcher.key_bytes);
        removed.is_some()
    }

    pub fn get_mut(&mut self, id: WatchId) -> Option<&mut Watcher> {
        self.watchers.get_mut(&id)
    }

    pub fn get(&self, id: WatchId) -> Option<&Watcher> {
        self.watchers.get(&id)
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (WatchId, &mut Watcher)> {
        self.watchers.iter_mut().map(|(id, watcher)| (*id, watcher))
    }

    pub fn len(&self) -> usize {
        self.watchers.len()
    }
}

/// A watcher lives long; it must not pin the buffer that its request came in.
fn copied(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(key: &'static str, end: &'static str, watch_id: WatchId) -> WatchCreateRequest {
        WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            watch_id,
            ..Default::default()
        }
    }

    #[test]
    fn ids_are_the_clients_or_the_next_free_one() {
        let mut registry = Registry::new(10);
        let mut create = |id| registry.create(request("k", "", id)).map(|spec| spec.id);
        assert_eq!(create(0), Ok(0));
        assert_eq!(create(1), Ok(1));
        assert_eq!(create(0), Ok(2));
        assert_eq!(create(7), Ok(7));
        assert_eq!(
            create(7),
            Err("mvcc: duplicate watch ID provided on the WatchStream".to_owned())
        );
        assert_eq!(create(0), Ok(3));
        assert!(registry.remove(7));
        assert!(!registry.remove(7));
        assert_eq!(registry.len(), 4);
    }

    #[test]
    fn ranges_are_etcds_with_the_empty_key_as_the_smallest() {
        let mut registry = Registry::new(10);
        let mut range = |key, end| registry.create(request(key, end, 0)).map(|spec| spec.range);
        assert_eq!(
            range("", "\0"),
            Ok(KeyRange {
                start: "\0".into(),
                end: None
            })
        );
        assert_eq!(
            range("a", ""),
            Ok(KeyRange {
                start: "a".into(),
                end: Some("a\0".into())
            })
        );
        assert_eq!(range("b", "a"), Err("mvcc: watcher range is empty".to_owned()));
        assert_eq!(range("b", "b"), Err("mvcc: watcher range is empty".to_owned()));
    }

    #[test]
    fn a_start_before_time_is_compacted() {
        let mut registry = Registry::new(10);
        let bad = WatchCreateRequest {
            start_revision: -1,
            ..request("k", "", 0)
        };
        let reason = registry.create(bad).unwrap_err();
        assert_eq!(reason, "etcdserver: mvcc: required revision has been compacted");
    }

    #[test]
    fn one_stream_holds_so_many_and_no_more() {
        let mut registry = Registry::new(2);
        assert!(registry.create(request("a", "", 0)).is_ok());
        assert!(registry.create(request("b", "", 0)).is_ok());
        assert!(registry.create(request("c", "", 0)).is_err());
    }

    #[test]
    fn the_keys_of_one_stream_are_bounded_together() {
        let mut registry = Registry::new(1000);
        let large: &'static str = "k".repeat(1 << 20).leak();
        let create = |registry: &mut Registry| registry.create(request(large, "", 0));
        // Its end is as long again.
        let created: Vec<_> = (0..100).map_while(|_| create(&mut registry).ok()).collect();
        assert_eq!(created.len(), 31);
        assert!(registry.remove(created[0].id));
        assert!(create(&mut registry).is_ok());
        assert!(create(&mut registry).is_err());
    }
}
