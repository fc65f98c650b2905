//! Which objects a list or a watch wants, decided on their keys and index terms, without decoding them.
//!
//! Index terms: `l/<label>` = the label's value; `f/<field>` = the value of an indexed field, the empty one
//! included; `owner` = the uid of each owner.

use barque_machinery::{
    metadata::Meta,
    selector::{FieldSelector, LabelSelector, Operator},
    status::Status,
};
use barque_proto::command::IndexTerm as ProtoTerm;
use barque_store::IndexTerm;
use bytes::Bytes;
use serde_json::Value;

use crate::{
    codec::{self, StoredRef},
    resource::{Resource, field_text},
};

/// A term as bytes borrowed from wherever it lies.
pub type TermRef<'a> = (&'a [u8], &'a [u8]);

/// What is written beside an object so that it can be found.
pub fn terms_of(resource: &Resource, object: &Value) -> Vec<ProtoTerm> {
    let meta = Meta::of(object);
    let label = |(key, value): (&str, &str)| term(format!("l/{key}"), value.to_owned());
    let mut terms: Vec<ProtoTerm> = meta.labels().map(label).collect();
    terms.extend(
        resource
            .indexed
            .iter()
            .map(|field| term(format!("f/{field}"), field_text(object, field))),
    );
    let owners = meta.owners().filter_map(|o| o["uid"].as_str());
    terms.extend(owners.map(|uid| term("owner".into(), uid.to_owned())));
    terms
}

fn term(field: String, value: String) -> ProtoTerm {
    ProtoTerm {
        field: field.into(),
        value: value.into(),
    }
}

/// The value of an indexed field in an object's terms.
pub fn indexed_field<'t>(terms: &'t [IndexTerm], field: &str) -> Option<&'t [u8]> {
    terms
        .iter()
        .find(|t| t.field.strip_prefix(b"f/") == Some(field.as_bytes()))
        .map(|t| t.value.as_ref())
}

#[derive(Debug, Clone, Default)]
pub struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// A field is selected by that is in no term: objects must be decoded.
    needs_object: bool,
}

impl Selection {
    /// Parses and checks the selectors of a request.
    pub fn new(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels = LabelSelector::parse(labels)?;
        let fields = FieldSelector::parse(fields)?;
        let mut needs_object = false;
        for requirement in &fields.requirements {
            let field = requirement.field.as_str();
            if is_key_field(field) || resource.indexed.contains(&field) {
                continue;
            }
            if !resource.selectable.contains(&field) {
                return Err(Status::bad_request(format!("field label not supported: {field}")));
            }
            needs_object = true;
        }
        Ok(Self {
            labels,
            fields,
            needs_object,
        })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that can match, if there is only one.
    pub fn only_name(&self) -> Option<&str> {
        self.fields.required_value("metadata.name")
    }

    pub fn only_namespace(&self) -> Option<&str> {
        self.fields.required_value("metadata.namespace")
    }

    /// A term that every match carries, so that the index finds the candidates.
    pub fn index_term(&self) -> Option<IndexTerm> {
        let field = self
            .fields
            .requirements
            .iter()
            .find(|r| !r.negated && !is_key_field(&r.field));
        if let Some(requirement) = field.filter(|_| !self.needs_object) {
            return Some(index_term(
                format!("f/{}", requirement.field),
                requirement.value.clone(),
            ));
        }
        self.labels.requirements.iter().find_map(|r| match &r.operator {
            Operator::In(values) if values.len() == 1 => {
                Some(index_term(format!("l/{}", r.key), values[0].clone()))
            }
            _ => None,
        })
    }

    /// Whether the object is selected; decodes it only when a field is asked for that is in no term.
    pub fn matches(
        &self,
        resource: &Resource,
        stored: StoredRef<'_>,
        terms: &[TermRef<'_>],
    ) -> Result<bool, Status> {
        if self.is_everything() {
            return Ok(true);
        }
        if !self.labels.matches(|key| find(terms, b"l/", key)) {
            return Ok(false);
        }
        let (namespace, name) = resource.split_key(stored.key).unwrap_or_default();
        let object = if self.needs_object {
            Some(codec::decode(stored)?)
        } else {
            None
        };
        let mut scratch = Vec::new();
        for requirement in &self.fields.requirements {
            let value = match requirement.field.as_str() {
                "metadata.name" => name,
                "metadata.namespace" => namespace,
                field => match (find(terms, b"f/", field), &object) {
                    (Some(value), _) => value,
                    (None, Some(object)) => {
                        scratch.push(field_text(object, field));
                        scratch.last().map_or("", String::as_str)
                    }
                    (None, None) => "",
                },
            };
            if (value == requirement.value) == requirement.negated {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn is_key_field(field: &str) -> bool {
    matches!(field, "metadata.name" | "metadata.namespace")
}

fn index_term(field: String, value: String) -> IndexTerm {
    IndexTerm {
        field: Bytes::from(field),
        value: Bytes::from(value),
    }
}

fn find<'t>(terms: &[TermRef<'t>], prefix: &[u8], name: &str) -> Option<&'t str> {
    let found = terms
        .iter()
        .find(|(field, _)| field.strip_prefix(prefix) == Some(name.as_bytes()));
    found.and_then(|(_, value)| std::str::from_utf8(value).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources;

    #[test]
    fn selects_by_terms_and_decodes_only_when_it_must() {
        let pods = resources::find("", "v1", "pods").unwrap();
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "b", "labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "schedulerName": "s"}, "status": {"phase": "Running"},
        });
        let encoded = codec::encode(&pod).unwrap();
        let terms = terms_of(pods, &pod);
        let refs: Vec<TermRef<'_>> = terms
            .iter()
            .map(|t| (t.field.as_ref(), t.value.as_ref()))
            .collect();
        let key = pods.key("b", "a");
        let stored = StoredRef {
            key: &key,
            value: &encoded.value,
            splice_offset: encoded.splice_offset,
            revision: 5,
        };
        let check = |labels: &str, fields: &str, expect: bool| {
            let selection = Selection::new(pods, labels, fields).unwrap();
            assert_eq!(
                selection.matches(pods, stored, &refs).unwrap(),
                expect,
                "{labels} {fields}"
            );
        };
        check("app=web", "spec.nodeName=n1", true);
        check("app!=web", "", false);
        check(
            "",
            "metadata.name=a,metadata.namespace=b,status.phase!=Failed",
            true,
        );
        check("", "metadata.namespace=c", false);
        check("", "spec.schedulerName=s", true);
        check("", "spec.schedulerName=t", false);
        assert!(Selection::new(pods, "", "spec.foo=x").is_err());
        assert!(
            !Selection::new(pods, "app", "status.phase=x")
                .unwrap()
                .needs_object
        );
    }
}
