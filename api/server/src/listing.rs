//! Walking the objects of a list in batches, and writing them as stored.

use std::{collections::VecDeque, ops::ControlFlow, sync::Arc, time::Duration};

use barque_machinery::status::Status;
use barque_store::{KeyRange, ReadError, Reader, Revision, ScanRow};
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::{
    codec::{self, StoredRef},
    errors,
    negotiate::Shape,
    registry::kv_ref,
    resource::Resource,
    selection::{Selection, TermRef},
    tables::{View, partial},
};

/// A view to read at one revision, taken away after a while: a view keeps files on disk, and a client that does
/// not read must not.
pub struct TimedView {
    reader: Arc<Mutex<Option<Reader>>>,
    revision: Revision,
    watchdog: JoinHandle<()>,
}

impl TimedView {
    pub fn new(reader: Reader, revision: Revision, time_allowed: Duration) -> Self {
        let reader = Arc::new(Mutex::new(Some(reader)));
        let watched = reader.clone();
        let watchdog = tokio::spawn(async move {
            tokio::time::sleep(time_allowed).await;
            watched.lock().take();
        });
        Self {
            reader,
            revision,
            watchdog,
        }
    }

    fn read<T>(&self, read: impl FnOnce(&Reader) -> Result<T, ReadError>) -> Result<T, Status> {
        match self.reader.lock().as_ref() {
            Some(reader) => read(reader).map_err(errors::from_read),
            None => Err(Status::timeout("the list was not read in time")),
        }
    }
}

impl Drop for TimedView {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}

/// A walk over the selected objects of one resource at one revision.
pub struct Lister {
    view: TimedView,
    resource: &'static Resource,
    selection: Selection,
    source: Source,
    /// 0: none.
    limit: usize,
    emitted: usize,
    /// The first selected key beyond the limit.
    next_key: Option<Bytes>,
    is_done: bool,
}

enum Source {
    /// What is left of the range.
    Range(KeyRange),
    /// What is left of the candidates that the index named.
    Keys(VecDeque<Bytes>),
}

/// Rows looked at in one go at most, so that a list that selects little still lets others run.
const MAX_ROWS_PER_BATCH: usize = 4096;

impl Lister {
    /// `range` lies within the resource's prefix.
    pub fn new(
        view: TimedView,
        resource: &'static Resource,
        selection: Selection,
        range: KeyRange,
        limit: usize,
    ) -> Result<Self, Status> {
        let mut source = None;
        if let Some(term) = selection.index_term() {
            let prefix = range_prefix(resource, &range);
            let revision = view.revision;
            // The index knows the view's head only.
            let keys = view.read(|reader| match reader.head().revision == revision {
                true => reader.keys_with_term(&term, &prefix).map(Some),
                false => Ok(None),
            })?;
            source = keys.map(|keys| Source::Keys(keys.into_iter().filter(|k| range.contains(k)).collect()));
        }
        let source = source.unwrap_or(Source::Range(range));
        Ok(Self {
            view,
            resource,
            selection,
            source,
            limit,
            emitted: 0,
            next_key: None,
            is_done: false,
        })
    }

    pub fn is_done(&self) -> bool {
        self.is_done
    }

    pub fn revision(&self) -> Revision {
        self.view.revision
    }

    pub fn resource(&self) -> &'static Resource {
        self.resource
    }

    /// Where the next page starts, once done.
    pub fn next_key(&self) -> Option<&Bytes> {
        self.next_key.as_ref()
    }

    /// How many objects lie behind this page; unknown when a selector hides some.
    pub fn remaining(&self, end: Option<Bytes>) -> Result<Option<i64>, Status> {
        let Some(start) = self.next_key.clone().filter(|_| self.selection.is_everything()) else {
            return Ok(None);
        };
        let rest = KeyRange { start, end };
        self.view
            .read(|reader| reader.count(&rest, self.view.revision))
            .map(Some)
    }

    /// Gives objects to `writer` until it holds `max_bytes` or so, or none is left.
    pub fn fill(&mut self, writer: &mut ItemWriter, max_bytes: usize) -> Result<(), Status> {
        match &mut self.source {
            Source::Range(_) => self.fill_from_range(writer, max_bytes),
            Source::Keys(_) => self.fill_from_keys(writer, max_bytes),
        }
    }

    fn fill_from_range(&mut self, writer: &mut ItemWriter, max_bytes: usize) -> Result<(), Status> {
        let Self {
            view,
            resource,
            selection,
            source,
            limit,
            emitted,
            next_key,
            is_done,
        } = self;
        let Source::Range(range) = source else {
            return Ok(());
        };
        let mut resume = None;
        let mut rows = 0;
        // What a row leads to: the scan goes on, or ends.
        let mut visit = |row: ScanRow<'_>| -> Result<bool, Status> {
            if writer.pending_bytes() >= max_bytes || rows == MAX_ROWS_PER_BATCH {
                resume = Some(Bytes::copy_from_slice(row.key));
                return Ok(false);
            }
            rows += 1;
            if !is_selected(selection, resource, &row)? {
                return Ok(true);
            }
            if *limit > 0 && *emitted == *limit {
                *next_key = Some(Bytes::copy_from_slice(row.key));
                return Ok(false);
            }
            *emitted += 1;
            writer.item(row_ref(&row)).map(|()| true)
        };
        let mut result = Ok(());
        view.read(|reader| {
            reader.scan(range, view.revision, &mut |row| match visit(row) {
                Ok(true) => ControlFlow::Continue(()),
                Ok(false) => ControlFlow::Break(()),
                Err(status) => {
                    result = Err(status);
                    ControlFlow::Break(())
                }
            })
        })?;
        match resume {
            Some(start) => range.start = start,
            None => *is_done = true,
        }
        result
    }

    fn fill_from_keys(&mut self, writer: &mut ItemWriter, max_bytes: usize) -> Result<(), Status> {
        let Source::Keys(keys) = &mut self.source else {
            return Ok(());
        };
        for _ in 0..MAX_ROWS_PER_BATCH {
            if writer.pending_bytes() >= max_bytes {
                return Ok(());
            }
            let Some(key) = keys.pop_front() else {
                self.is_done = true;
                return Ok(());
            };
            let Some(kv) = self.view.read(|reader| reader.get(&key, self.view.revision))? else {
                continue;
            };
            let terms: Vec<TermRef<'_>> = kv
                .terms
                .iter()
                .map(|t| (t.field.as_ref(), t.value.as_ref()))
                .collect();
            if !self.selection.matches(self.resource, kv_ref(&kv), &terms)? {
                continue;
            }
            if self.limit > 0 && self.emitted == self.limit {
                self.next_key = Some(key);
                self.is_done = true;
                return Ok(());
            }
            self.emitted += 1;
            writer.item(kv_ref(&kv))?;
        }
        Ok(())
    }
}

fn row_ref<'r>(row: &ScanRow<'r>) -> StoredRef<'r> {
    StoredRef {
        key: row.key,
        value: row.value,
        splice_offset: row.splice_offset,
        revision: row.mod_revision.0,
    }
}

fn is_selected(selection: &Selection, resource: &Resource, row: &ScanRow<'_>) -> Result<bool, Status> {
    if selection.is_everything() {
        return Ok(true);
    }
    let mut terms: Vec<TermRef<'_>> = Vec::with_capacity(8);
    row.terms.each(&mut |field, value| terms.push((field, value)));
    selection.matches(resource, row_ref(row), &terms)
}

/// The prefix that all keys of a range share, as far as the index needs it: a namespace's, or the resource's.
fn range_prefix(resource: &Resource, range: &KeyRange) -> Bytes {
    let whole = resource.prefix("");
    let rest = range.start.strip_prefix(whole.as_ref()).unwrap_or_default();
    let Some(slash) = rest.iter().position(|b| *b == b'/') else {
        return whole;
    };
    let narrow = range.start.slice(..whole.len() + slash + 1);
    match crate::storage::prefix_end(&narrow) == range.end {
        true => narrow,
        false => whole,
    }
}

/// Writes the items of a list, or the frames of a watch's initial state.
pub struct ItemWriter {
    view: View,
    form: Form,
    out: Vec<u8>,
    /// Objects of a table that are not rendered yet, and their size as stored.
    objects: Vec<serde_json::Value>,
    objects_bytes: usize,
    any: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Separated by commas.
    Items,
    /// One watch frame each.
    Frames,
}

impl ItemWriter {
    pub fn new(view: View, form: Form) -> Self {
        Self {
            view,
            form,
            out: Vec::new(),
            objects: Vec::new(),
            objects_bytes: 0,
            any: false,
        }
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    pub fn pending_bytes(&self) -> usize {
        self.out.len() + self.objects_bytes
    }

    fn item(&mut self, stored: StoredRef<'_>) -> Result<(), Status> {
        match (self.form, self.view.shape) {
            (Form::Frames, Shape::Object) => codec::splice_frame(&mut self.out, "ADDED", stored),
            (Form::Frames, _) => {
                let value = self.view.one(stored, self.view.now())?;
                self.out.extend_from_slice(b"{\"type\":\"ADDED\",\"object\":");
                self.push(&value)?;
                self.out.extend_from_slice(b"}\n");
                Ok(())
            }
            (Form::Items, Shape::Object) => {
                self.comma();
                codec::splice(&mut self.out, stored)
            }
            (Form::Items, Shape::PartialMetadata) => {
                self.comma();
                self.push(&partial(&codec::decode(stored)?))
            }
            (Form::Items, Shape::Table) => {
                self.objects.push(codec::decode(stored)?);
                self.objects_bytes += stored.value.len();
                Ok(())
            }
        }
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Result<Bytes, Status> {
        if !self.objects.is_empty() {
            self.objects_bytes = 0;
            for object in std::mem::take(&mut self.objects) {
                let row = self.view.row(&object);
                self.comma();
                self.push(&row)?;
            }
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    fn comma(&mut self) {
        if self.any {
            self.out.push(b',');
        }
        self.any = true;
    }

    fn push(&mut self, value: &serde_json::Value) -> Result<(), Status> {
        serde_json::to_writer(&mut self.out, value).map_err(Status::internal)
    }
}
