//! Request bodies in `application/vnd.kubernetes.protobuf`, which Go clients write by default, to JSON.
//!
//! `decode` opens the envelope (four bytes of magic, then apiVersion, kind and the object's own bytes) and decodes
//! the object by the `schema`. It never encodes: answers are JSON, which the same clients take.

mod decode;
mod schema;
mod tables;
mod wire;

#[cfg(test)]
mod captured;

use serde_json::Value;
use thiserror::Error;

use schema::SCHEMA;
use wire::{Reader, Wire, WireError};

pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

#[derive(Debug, PartialEq, Eq, Error)]
pub enum ProtobufError {
    #[error("it does not begin with the bytes \"k8s\\0\"")]
    Magic,
    #[error("the envelope is malformed: {0}")]
    Envelope(&'static str),
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("kind {kind:?} of {api_version:?} is not known in protobuf here")]
    UnknownKind { api_version: String, kind: String },
    #[error("{message} has no field {field} that is known here")]
    UnknownField { message: String, field: u32 },
    #[error("field {field} of {message}: {why}")]
    Malformed {
        message: String,
        field: u32,
        why: String,
    },
    #[error("messages are nested too deep")]
    TooDeep,
}

/// The object of a body with the envelope around it.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = Envelope::parse(body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?)?;
    let Envelope {
        api_version, kind, ..
    } = envelope;
    let id = SCHEMA
        .of_kind(api_version, kind)
        .ok_or_else(|| ProtobufError::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
        })?;
    let mut object = decode::message(id, envelope.raw)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(object.into())
}

#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut envelope = Self::default();
        for item in Reader::new(bytes) {
            match item? {
                (1, Wire::Bytes(type_meta)) => envelope.parse_type(type_meta)?,
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                (3, Wire::Bytes(b"")) => {}
                (3, Wire::Bytes(_)) => return Err(ProtobufError::Envelope("its content is encoded")),
                (4, Wire::Bytes(content_type)) => {
                    if !content_type.is_empty() && content_type != MEDIA_TYPE.as_bytes() {
                        return Err(ProtobufError::Envelope("its content is not protobuf"));
                    }
                }
                _ => return Err(ProtobufError::Envelope("it has an unknown field")),
            }
        }
        Ok(envelope)
    }

    fn parse_type(&mut self, bytes: &'a [u8]) -> Result<(), ProtobufError> {
        let text = |bytes| {
            std::str::from_utf8(bytes).map_err(|_| ProtobufError::Envelope("its type is not in UTF-8"))
        };
        for item in Reader::new(bytes) {
            match item? {
                (1, Wire::Bytes(api_version)) => self.api_version = text(api_version)?,
                (2, Wire::Bytes(kind)) => self.kind = text(kind)?,
                _ => return Err(ProtobufError::Envelope("its type has an unknown field")),
            }
        }
        Ok(())
    }
}
