//! What the messages of the Kubernetes API look like on the wire and in JSON, read once from `tables`.
//!
//! A table's entry is `Message: number name type, …`; lines that begin with a space continue it. A type is `string`,
//! `bytes`, `bool`, `int32`, `int64`, one of the types with a JSON form of their own (`Time`, `Quantity`, …) or a
//! message; `[]` before it makes a list of it and `{}` a map from string. `=` behind it keeps a zero value: the field
//! may be unset in its own right, or its JSON always has it. The name `*` puts a message's fields into its parent's.

use std::{collections::HashMap, sync::LazyLock};

use super::tables::TABLES;

/// The index of a message in the schema.
pub type MessageId = usize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Time,
    MicroTime,
    IntOrString,
    Quantity,
    /// JSON text in bytes.
    FieldsV1,
    /// A message that is a list of strings in JSON.
    ExtraValue,
    Message(MessageId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    One,
    List,
    Map,
}

#[derive(Debug)]
pub struct Field {
    pub number: u32,
    pub name: &'static str,
    pub kind: Type,
    pub cardinality: Cardinality,
    pub keeps_zero: bool,
}

impl Field {
    pub fn is_inline(&self) -> bool {
        self.name == "*"
    }
}

#[derive(Debug)]
pub struct Message {
    pub name: &'static str,
    pub fields: Vec<Field>,
}

impl Message {
    pub fn field(&self, number: u32) -> Option<&Field> {
        self.fields.iter().find(|f| f.number == number)
    }
}

pub struct Schema {
    messages: Vec<Message>,
    ids: HashMap<&'static str, MessageId>,
}

/// The tables are part of the program: a mistake in one is found by the first test that reads any.
pub static SCHEMA: LazyLock<Schema> = LazyLock::new(|| match Schema::parse(TABLES) {
    Ok(schema) => schema,
    Err(why) => panic!("the tables of protobuf messages are broken: {why}"),
});

/// The kinds that a request's body may have, with their message's name.
const KINDS: &[(&str, &[&str])] = &[
    (
        "v1",
        &[
            "Binding",
            "ConfigMap",
            "Event",
            "Namespace",
            "Node",
            "Pod",
            "Secret",
            "Service",
        ],
    ),
    ("apps/v1", &["Deployment", "ReplicaSet"]),
    ("autoscaling/v1", &["Scale"]),
    ("coordination.k8s.io/v1", &["Lease"]),
    ("policy/v1", &["Eviction"]),
    (
        "authorization.k8s.io/v1",
        &["SelfSubjectAccessReview", "SelfSubjectRulesReview"],
    ),
    ("authentication.k8s.io/v1", &["SelfSubjectReview"]),
];

impl Schema {
    /// The message of a kind, if a body may have that kind. `DeleteOptions` is part of every group and version.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<MessageId> {
        let known = kind == "DeleteOptions"
            || KINDS
                .iter()
                .any(|(version, kinds)| *version == api_version && kinds.contains(&kind));
        known.then(|| self.ids.get(kind).copied()).flatten()
    }

    pub fn message(&self, id: MessageId) -> &Message {
        &self.messages[id]
    }

    fn parse(tables: &[&'static str]) -> Result<Self, String> {
        let lines = || tables.iter().flat_map(|t| t.lines()).filter(|l| !l.is_empty());
        let heads = lines().filter(|l| !l.starts_with(' '));
        let mut ids = HashMap::new();
        for (id, head) in heads.enumerate() {
            let (name, _) = head.split_once(':').ok_or(head)?;
            if ids.insert(name, id).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        let mut messages: Vec<Message> = Vec::with_capacity(ids.len());
        for line in lines() {
            let text = match line.split_once(':') {
                Some((name, text)) => {
                    let fields = Vec::new();
                    messages.push(Message { name, fields });
                    text
                }
                None => line,
            };
            let message = messages.last_mut().ok_or(line)?;
            for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
                let field = parse_field(entry, &ids).ok_or_else(|| format!("{}: {entry}", message.name))?;
                if message.field(field.number).is_some() {
                    return Err(format!("{}: {} is there twice", message.name, field.number));
                }
                message.fields.push(field);
            }
        }
        Ok(Self { messages, ids })
    }
}

fn parse_field(entry: &'static str, ids: &HashMap<&str, MessageId>) -> Option<Field> {
    let mut words = entry.split(' ');
    let number = words.next()?.parse().ok()?;
    let name = words.next()?;
    let spelled = words.next()?;
    let (spelled, keeps_zero) = match spelled.strip_suffix('=') {
        Some(spelled) => (spelled, true),
        None => (spelled, false),
    };
    let (cardinality, spelled) = match (spelled.strip_prefix("[]"), spelled.strip_prefix("{}")) {
        (Some(element), _) => (Cardinality::List, element),
        (_, Some(element)) => (Cardinality::Map, element),
        _ => (Cardinality::One, spelled),
    };
    let kind = match spelled {
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "Time" => Type::Time,
        "MicroTime" => Type::MicroTime,
        "IntOrString" => Type::IntOrString,
        "Quantity" => Type::Quantity,
        "FieldsV1" => Type::FieldsV1,
        "ExtraValue" => Type::ExtraValue,
        message => Type::Message(*ids.get(message)?),
    };
    words.next().is_none().then_some(Field {
        number,
        name,
        kind,
        cardinality,
        keeps_zero,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_message_and_every_field_its_place() {
        for (version, kinds) in KINDS {
            for kind in *kinds {
                let id = SCHEMA.of_kind(version, kind).expect(kind);
                let metadata = SCHEMA.message(id).field(1).expect(kind);
                assert_eq!(metadata.name, "metadata", "{kind}");
            }
        }
        assert!(SCHEMA.of_kind("apps/v1", "DeleteOptions").is_some());
        assert_eq!(SCHEMA.of_kind("apps/v1", "Pod"), None);
        assert_eq!(SCHEMA.of_kind("v1", "Container"), None);
        for message in &SCHEMA.messages {
            for field in &message.fields {
                let one_message =
                    field.cardinality == Cardinality::One && matches!(field.kind, Type::Message(_));
                assert!(!field.is_inline() || one_message, "{} {field:?}", message.name);
            }
        }
    }

    #[test]
    fn broken_tables_are_refused() {
        for table in [
            "A: 1 a string\nA: 1 b string",
            "A: 1 a string, 1 b string",
            "A: 1 a B",
            "A: x a string",
            "A: 1 a string more",
            " 1 a string",
            "A 1",
        ] {
            assert!(Schema::parse(&[table]).is_err(), "{table}");
        }
    }
}
