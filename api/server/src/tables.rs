//! Tables and partial metadata: the forms of objects that have to be decoded.

use barque_machinery::{
    status::Status,
    table::{self, IncludeObject, Layout},
};
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::{
    codec::{self, StoredRef},
    negotiate::Shape,
    query::Query,
    resource::Resource,
};

/// How the objects of one request are shown.
#[derive(Clone)]
pub struct View {
    pub shape: Shape,
    pub resource: &'static Resource,
    include: IncludeObject,
    layout: &'static Layout,
    /// What ages are counted from.
    now: OffsetDateTime,
}

impl View {
    pub fn new(
        shape: Shape,
        resource: &'static Resource,
        query: &Query,
        now: OffsetDateTime,
    ) -> Result<Self, Status> {
        let asked = query.get("includeObject");
        let include = IncludeObject::parse(asked)
            .ok_or_else(|| Status::bad_request(format!("unrecognized includeObject value: {asked:?}")))?;
        let layout = table::layout(resource.group_version.group, resource.kind);
        Ok(Self {
            shape,
            resource,
            include,
            layout,
            now,
        })
    }

    /// One object in this shape, for a get or a watch. A table has its columns with it: in a watch a client
    /// prints them again only when they changed.
    pub fn one(&self, stored: StoredRef<'_>, now: OffsetDateTime) -> Result<Value, Status> {
        let object = codec::decode(stored)?;
        Ok(match self.shape {
            Shape::Object => object,
            Shape::PartialMetadata => partial(&object),
            Shape::Table => {
                let metadata = json!({ "resourceVersion": stored.revision.to_string() });
                self.layout
                    .table(metadata, vec![self.layout.row(&object, now, self.include)], true)
            }
        })
    }

    pub fn columns(&self) -> Value {
        self.layout.columns()
    }

    pub fn row(&self, object: &Value) -> Value {
        self.layout.row(object, self.now, self.include)
    }

    /// A table without rows, for bookmarks.
    pub fn empty_table(&self, metadata: Value) -> Value {
        self.layout.table(metadata, Vec::new(), false)
    }

    pub fn now(&self) -> OffsetDateTime {
        self.now
    }
}

pub fn partial(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}
