//! GET of a collection: streamed as stored, a batch at a time, under one view.

use std::{collections::VecDeque, sync::Arc};

use axum::body::Body;
use barque_machinery::{
    continue_token::ContinueToken,
    resource_version::{self, ReadAt},
    status::Status,
};
use barque_store::{KeyRange, Reader, Revision};
use bytes::Bytes;
use futures_util::stream;
use http::{Response, StatusCode};
use serde_json::json;

use crate::{
    inflight::Admission,
    listing::{Form, ItemWriter, Lister, TimedView},
    negotiate::{self, Shape},
    request::ApiRequest,
    respond,
    selection::Selection,
    server::Server,
    storage,
    tables::View,
};

/// What goes out in one piece.
const CHUNK_BYTES: usize = 64 * 1024;
/// Pieces made per hop to a blocking thread.
const CHUNKS_AHEAD: usize = 4;

pub async fn list(
    server: &Arc<Server>,
    request: ApiRequest,
    admission: Admission,
) -> Result<Response<Body>, Status> {
    let shape = negotiate::shape(&request.headers)?;
    let view = View::new(shape, request.resource, &request.query, server.registry.now())?;
    let page = Page::open(server, request).await?;
    let writer = ItemWriter::new(view, Form::Items);
    let mut listing = Listing {
        page,
        writer,
        is_open: false,
        _admission: admission,
    };
    // The first piece is made before anything is sent: what is wrong is still a Status then.
    let first = listing.next_chunk()?;
    if listing.is_finished() {
        return Ok(respond::bytes(StatusCode::OK, first));
    }
    let pieces = Pieces {
        listing: Some(listing),
        ready: VecDeque::new(),
    };
    let rest = stream::try_unfold(pieces, Pieces::next);
    let body = stream::StreamExt::chain(stream::iter([Ok(first)]), rest);
    Ok(respond::bytes(StatusCode::OK, Body::from_stream(body)))
}

/// The walk behind one request, and what its metadata needs.
pub struct Page {
    lister: Lister,
    prefix: Bytes,
    end: Option<Bytes>,
    is_limited: bool,
}

impl Page {
    async fn open(server: &Arc<Server>, request: ApiRequest) -> Result<Self, Status> {
        let query = &request.query;
        let selection = Selection::new(
            request.resource,
            query.get("labelSelector"),
            query.get("fieldSelector"),
        )?;
        let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(0);
        let token = match query.get("continue") {
            "" => None,
            text => Some(ContinueToken::decode(text)?),
        };
        let at = resource_version::for_list(
            query.get("resourceVersion"),
            query.get("resourceVersionMatch"),
            limit > 0,
            token.is_some(),
        )?;
        let (prefix, mut range) = selected_range(&request, &selection);
        let end = range.end.clone();
        let (reader, revision) = match &token {
            None => server.registry.storage().read_at(at).await?,
            Some(token) => {
                let start = [prefix.as_ref(), &token.start].concat();
                range.start = Bytes::from(start).max(range.start);
                read_for_token(server, token).await?
            }
        };
        let view = TimedView::new(reader, revision, server.config.request_timeout);
        let lister = Lister::new(view, request.resource, selection, range, limit)?;
        Ok(Self {
            lister,
            prefix,
            end,
            is_limited: limit > 0,
        })
    }

    /// ListMeta, once the page is walked.
    fn metadata(&self) -> Result<serde_json::Value, Status> {
        let revision = self.lister.revision().0;
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if let Some(next) = self.lister.next_key() {
            let start = next
                .strip_prefix(self.prefix.as_ref())
                .unwrap_or_default()
                .to_vec();
            metadata["continue"] = ContinueToken { revision, start }.encode().into();
            if let Some(count) = self.lister.remaining(self.end.clone())? {
                metadata["remainingItemCount"] = count.into();
            }
        }
        Ok(metadata)
    }
}

/// The prefix of the request's collection, and what of it a selector by name or namespace leaves.
pub fn selected_range(request: &ApiRequest, selection: &Selection) -> (Bytes, KeyRange) {
    let resource = request.resource;
    let namespace = &request.place().namespace;
    let prefix = resource.prefix(namespace);
    let narrow = match (
        namespace.as_str(),
        selection.only_namespace(),
        selection.only_name(),
    ) {
        ("", Some(namespace), None) if resource.namespaced && !namespace.is_empty() => {
            resource.prefix(namespace)
        }
        ("", _, Some(name)) if !resource.namespaced => {
            return (prefix, KeyRange::single(resource.key("", name)));
        }
        (namespace, _, Some(name)) if resource.namespaced && !namespace.is_empty() => {
            return (prefix, KeyRange::single(resource.key(namespace, name)));
        }
        _ => prefix.clone(),
    };
    let range = KeyRange {
        start: narrow.clone(),
        end: storage::prefix_end(&narrow),
    };
    (prefix, range)
}

/// The view for a later page: the first page's revision, while the history has it.
async fn read_for_token(server: &Arc<Server>, token: &ContinueToken) -> Result<(Reader, Revision), Status> {
    let storage = server.registry.storage();
    if token.revision == -1 {
        return storage.read_at(ReadAt::MostRecent).await;
    }
    storage
        .read_at(ReadAt::Exact(token.revision))
        .await
        .map_err(|status| match status.code {
            410 => Status::continue_expired(Some(
                ContinueToken {
                    revision: -1,
                    ..token.clone()
                }
                .encode(),
            )),
            _ => status,
        })
}

struct Listing {
    page: Page,
    writer: ItemWriter,
    /// The head of the document is written.
    is_open: bool,
    _admission: Admission,
}

impl Listing {
    fn is_finished(&self) -> bool {
        self.page.lister.is_done()
    }

    /// The next piece of the document; with the last item comes the end.
    fn next_chunk(&mut self) -> Result<Bytes, Status> {
        let mut out = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
        if !self.is_open {
            self.write_head(&mut out);
            self.is_open = true;
        }
        self.page.lister.fill(&mut self.writer, CHUNK_BYTES)?;
        let items = self.writer.take()?;
        if out.is_empty() && !self.is_finished() {
            return Ok(items);
        }
        out.extend_from_slice(&items);
        if self.is_finished() {
            self.write_tail(&mut out)?;
        }
        Ok(out.into())
    }

    /// A page's metadata is known at its end only, and stands there; without a limit it comes first.
    fn write_head(&self, out: &mut Vec<u8>) {
        let view = self.writer.view();
        let resource = self.page.lister.resource();
        let version = resource.group_version;
        let (kind, version) = match view.shape {
            Shape::Object => (resource.list_kind(), version.to_string()),
            Shape::PartialMetadata => ("PartialObjectMetadataList".into(), "meta.k8s.io/v1".into()),
            Shape::Table => ("Table".into(), "meta.k8s.io/v1".into()),
        };
        out.extend_from_slice(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\"").as_bytes());
        if !self.page.is_limited {
            let revision = self.page.lister.revision().0;
            out.extend_from_slice(format!(",\"metadata\":{{\"resourceVersion\":\"{revision}\"}}").as_bytes());
        }
        if view.shape == Shape::Table {
            let columns = view.columns();
            out.extend_from_slice(format!(",\"columnDefinitions\":{columns},\"rows\":[").as_bytes());
        } else {
            out.extend_from_slice(b",\"items\":[");
        }
    }

    fn write_tail(&self, out: &mut Vec<u8>) -> Result<(), Status> {
        out.push(b']');
        if self.page.is_limited {
            out.extend_from_slice(format!(",\"metadata\":{}", self.page.metadata()?).as_bytes());
        }
        out.extend_from_slice(b"}\n");
        Ok(())
    }
}

/// The rest of a listing, made ahead a little.
struct Pieces {
    /// `None` at the end.
    listing: Option<Listing>,
    ready: VecDeque<Bytes>,
}

impl Pieces {
    /// The next piece. An error cuts the connection, since the answer's head is out.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, axum::BoxError> {
        while self.ready.is_empty() {
            let Some(listing) = self.listing.take() else { break };
            // On a thread that may wait for the disk.
            let made = tokio::task::spawn_blocking(move || make_ahead(listing)).await?;
            let (pieces, listing) =
                made.inspect_err(|status| tracing::error!(%status, "a list ended early"))?;
            self.ready.extend(pieces);
            self.listing = Some(listing).filter(|l| !l.is_finished());
        }
        Ok(self.ready.pop_front().map(|piece| (piece, self)))
    }
}

fn make_ahead(mut listing: Listing) -> Result<(Vec<Bytes>, Listing), Status> {
    let mut pieces = Vec::with_capacity(CHUNKS_AHEAD);
    while pieces.len() < CHUNKS_AHEAD && !listing.is_finished() {
        // A selector may leave nothing of a whole batch.
        pieces.extend(Some(listing.next_chunk()?).filter(|piece| !piece.is_empty()));
    }
    Ok((pieces, listing))
}
