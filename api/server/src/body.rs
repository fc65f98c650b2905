//! Request bodies: read within the limit, parsed from JSON, YAML or protobuf, duplicate fields noticed.

use std::fmt;

use axum::body::Body;
use barque_machinery::status::Status;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{
    config::MAX_BODY_BYTES,
    protobuf::{self, ProtobufError},
};

/// A parsed body, and the paths of fields that it had more than once (the last one counts).
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    pub duplicates: Vec<String>,
}

pub async fn read(body: Body) -> Result<Bytes, Status> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.downcast_ref::<LengthLimitError>().is_some() => Err(Status::too_large(MAX_BODY_BYTES)),
        Err(e) => Err(Status::bad_request(format!(
            "unable to read the request's body: {e}"
        ))),
    }
}

/// The Content-Type without its parameters.
pub fn content_type(headers: &HeaderMap) -> &str {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

pub fn decode(content_type: &str, bytes: &[u8]) -> Result<Decoded, Status> {
    match content_type {
        "" | "application/json" | "*/*" => decode_json(bytes),
        "application/yaml" | "application/x-yaml" | "text/yaml" => decode_yaml(bytes),
        protobuf::MEDIA_TYPE => decode_protobuf(bytes),
        _ => Err(Status::unsupported_media_type(
            "application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

fn decode_protobuf(bytes: &[u8]) -> Result<Decoded, Status> {
    let value = protobuf::decode(bytes).map_err(|e| match e {
        ProtobufError::UnknownKind { .. } => {
            Status::unsupported_media_type(&format!("application/json, application/yaml ({e})"))
        }
        e => Status::bad_request(format!("the object provided is not valid protobuf: {e}")),
    })?;
    Ok(Decoded {
        value,
        duplicates: Vec::new(),
    })
}

pub fn decode_json(bytes: &[u8]) -> Result<Decoded, Status> {
    let mut duplicates = Vec::new();
    let mut path = String::new();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = ValueSeed {
        path: &mut path,
        duplicates: &mut duplicates,
    };
    let parsed = seed
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    let value = parsed.map_err(|e| {
        Status::bad_request(format!(
            "the object provided is unrecognized: json parse error: {e}"
        ))
    })?;
    Ok(Decoded { value, duplicates })
}

fn decode_yaml(bytes: &[u8]) -> Result<Decoded, Status> {
    let bad = |e: String| Status::bad_request(format!("error converting YAML to JSON: {e}"));
    let text = std::str::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
    let value = serde_saphyr::from_str::<Value>(text).map_err(|e| bad(e.to_string()))?;
    Ok(Decoded {
        value,
        duplicates: Vec::new(),
    })
}

/// Builds a `Value` while keeping the path of where it is.
struct ValueSeed<'s> {
    path: &'s mut String,
    duplicates: &'s mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        let here = self.path.len();
        loop {
            self.path.push_str(&format!("[{}]", items.len()));
            let seed = ValueSeed {
                path: self.path,
                duplicates: self.duplicates,
            };
            let item = seq.next_element_seed(seed)?;
            self.path.truncate(here);
            match item {
                Some(item) => items.push(item),
                None => return Ok(items.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        const MAX_DUPLICATES: usize = 100;
        // No key that is taken makes a path anywhere near as long.
        const MAX_PATH_BYTES: usize = 16 << 10;
        let mut fields = Map::new();
        let here = self.path.len();
        while let Some(key) = map.next_key::<String>()? {
            if here > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if fields.contains_key(&key) {
                if self.duplicates.len() == MAX_DUPLICATES || self.path.len() > MAX_PATH_BYTES {
                    return Err(A::Error::custom("too many duplicate fields"));
                }
                self.duplicates.push(self.path.clone());
            }
            let value = map.next_value_seed(ValueSeed {
                path: self.path,
                duplicates: self.duplicates,
            })?;
            self.path.truncate(here);
            fields.insert(key, value);
        }
        Ok(fields.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_of_duplicates_counts_and_their_paths_are_known() {
        let text = br#"{"a":1,"b":[{"c":1,"c":2.5}],"a":null,"d":{"e":true,"e":"x"}}"#;
        let decoded = decode_json(text).unwrap();
        assert_eq!(
            decoded.value,
            json!({"a": null, "b": [{"c": 2.5}], "d": {"e": "x"}})
        );
        assert_eq!(decoded.duplicates, ["b[0].c", "a", "d.e"]);
    }

    #[test]
    fn forms_of_bodies() {
        let check = |content_type: &str, text: &str, expect: Result<Value, u16>| {
            let found = decode(content_type, text.as_bytes());
            assert_eq!(
                found.map(|d| d.value).map_err(|s| s.code),
                expect,
                "{content_type} {text}"
            );
        };
        check("application/json", "{\"a\":-1}", Ok(json!({"a": -1})));
        check("", "{}", Ok(json!({})));
        check(
            "application/yaml",
            "a: 1\nb:\n- c\n",
            Ok(json!({"a": 1, "b": ["c"]})),
        );
        check("application/json", "{} x", Err(400));
        let long = "a".repeat(20_000);
        let twice = format!(r#"{{"{long}":1,"{long}":2}}"#);
        check("application/json", &twice, Err(400));
        check("application/json", "{", Err(400));
        check("application/yaml", "a: [", Err(400));
        let protobuf = "application/vnd.kubernetes.protobuf";
        let config_map = "k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x05\n\x03\n\x01a";
        let expect = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
        check(protobuf, config_map, Ok(expect));
        check(protobuf, &config_map[..config_map.len() - 1], Err(400));
        check(protobuf, "{}", Err(400));
        check(protobuf, "k8s\0\n\x05\x12\x03Job", Err(415));
        check("application/cbor", "{}", Err(415));
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        check("application/json", &deep, Err(400));
        check("application/yaml", &deep, Err(400));
    }
}
