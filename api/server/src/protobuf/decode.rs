//! Messages to JSON, as Go's encoder would have written the same object in JSON.
//!
//! The encoders of Kubernetes write zero values of fields that cannot be unset; those are left out again, unless the
//! field's JSON always has them. Nothing is lost silently: an unknown field, or a second value for a field that has
//! one only, is an error.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::{
    ProtobufError,
    schema::{Cardinality, Field, Message, MessageId, SCHEMA, Type},
    wire::{Reader, Wire},
};

/// No message of the schema nests this deep.
const MAX_DEPTH: usize = 32;

/// Where in the input the decoder is, for errors.
#[derive(Clone, Copy)]
struct Place<'p> {
    message: &'p str,
    field: u32,
    depth: usize,
}

impl Place<'_> {
    fn malformed(self, why: impl ToString) -> ProtobufError {
        ProtobufError::Malformed {
            message: self.message.to_owned(),
            field: self.field,
            why: why.to_string(),
        }
    }
}

pub fn message(id: MessageId, bytes: &[u8]) -> Result<Map<String, Value>, ProtobufError> {
    nested(SCHEMA.message(id), bytes, 0)
}

fn nested(message: &Message, bytes: &[u8], depth: usize) -> Result<Map<String, Value>, ProtobufError> {
    if depth == MAX_DEPTH {
        return Err(ProtobufError::TooDeep);
    }
    let mut object = Map::new();
    let mut seen = Vec::new();
    for item in Reader::new(bytes) {
        let (number, wire) = item?;
        let place = Place {
            message: message.name,
            field: number,
            depth,
        };
        let field = message.field(number).ok_or_else(|| ProtobufError::UnknownField {
            message: message.name.to_owned(),
            field: number,
        })?;
        match field.cardinality {
            Cardinality::One if seen.contains(&number) => return Err(place.malformed("it is there twice")),
            Cardinality::One => {
                seen.push(number);
                put_one(&mut object, field, value(field.kind, wire, place)?);
            }
            Cardinality::List => put_elements(&mut object, field, wire, place)?,
            Cardinality::Map => put_entry(&mut object, field, wire, place)?,
        }
    }
    Ok(object)
}

fn put_one(object: &mut Map<String, Value>, field: &Field, value: Value) {
    match value {
        Value::Object(mut inner) if field.is_inline() => object.append(&mut inner),
        // A time that is not set.
        Value::Null => {}
        value if !field.keeps_zero && is_zero(&value) => {}
        value => {
            object.insert(field.name.to_owned(), value);
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(s) => s.is_empty(),
        Value::Number(n) => n.as_i64() == Some(0),
        Value::Bool(b) => !b,
        _ => false,
    }
}

fn put_elements(
    object: &mut Map<String, Value>,
    field: &Field,
    wire: Wire<'_>,
    place: Place<'_>,
) -> Result<(), ProtobufError> {
    let list = object
        .entry(field.name)
        .or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = list else {
        return Err(place.malformed("it is a list and something else"));
    };
    match (field.kind, wire) {
        (Type::Int32 | Type::Int64 | Type::Bool, Wire::Bytes(packed)) => {
            let mut reader = Reader::new(packed);
            while !reader.is_empty() {
                list.push(value(field.kind, Wire::Varint(reader.varint()?), place)?);
            }
        }
        _ => list.push(value(field.kind, wire, place)?),
    }
    Ok(())
}

fn put_entry(
    object: &mut Map<String, Value>,
    field: &Field,
    wire: Wire<'_>,
    place: Place<'_>,
) -> Result<(), ProtobufError> {
    let (mut key, mut content) = (None, None);
    for item in Reader::new(bytes_of(wire, place)?) {
        match item? {
            (1, wire) if key.is_none() => key = Some(text_of(wire, place)?),
            (2, wire) if content.is_none() => content = Some(value(field.kind, wire, place)?),
            (number, _) => return Err(place.malformed(format!("a map entry with a field {number} too many"))),
        }
    }
    // What an entry leaves out is the type's zero: an empty string or an empty message.
    let content = match content {
        Some(content) => content,
        None => value(field.kind, Wire::Bytes(b""), place)?,
    };
    let map = object
        .entry(field.name)
        .or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(map) = map else {
        return Err(place.malformed("it is a map and something else"));
    };
    let key = key.unwrap_or_default();
    if map.contains_key(key) {
        return Err(place.malformed(format!("the key {key:?} is there twice")));
    }
    map.insert(key.to_owned(), content);
    Ok(())
}

fn value(kind: Type, wire: Wire<'_>, place: Place<'_>) -> Result<Value, ProtobufError> {
    Ok(match kind {
        Type::String => text_of(wire, place)?.into(),
        Type::Bytes => STANDARD.encode(bytes_of(wire, place)?).into(),
        Type::Bool => (varint_of(wire, place)? != 0).into(),
        Type::Int32 => int32_of(wire, place)?.into(),
        Type::Int64 => varint_of(wire, place)?.into(),
        Type::Time => time(bytes_of(wire, place)?, false, place)?,
        Type::MicroTime => time(bytes_of(wire, place)?, true, place)?,
        Type::IntOrString => int_or_string(bytes_of(wire, place)?, place)?,
        Type::Quantity => quantity(bytes_of(wire, place)?, place)?.into(),
        Type::FieldsV1 => fields_v1(bytes_of(wire, place)?, place)?,
        Type::ExtraValue => strings(bytes_of(wire, place)?, place)?,
        Type::Message(id) => nested(SCHEMA.message(id), bytes_of(wire, place)?, place.depth + 1)?.into(),
    })
}

fn bytes_of<'a>(wire: Wire<'a>, place: Place<'_>) -> Result<&'a [u8], ProtobufError> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err(place.malformed("its wire type is not that of a text or message")),
    }
}

fn text_of<'a>(wire: Wire<'a>, place: Place<'_>) -> Result<&'a str, ProtobufError> {
    std::str::from_utf8(bytes_of(wire, place)?).map_err(|e| place.malformed(e))
}

/// Negative numbers are in two's complement, also those of 32 bits.
fn varint_of(wire: Wire<'_>, place: Place<'_>) -> Result<i64, ProtobufError> {
    match wire {
        Wire::Varint(v) => Ok(v as i64),
        _ => Err(place.malformed("its wire type is not that of a number")),
    }
}

fn int32_of(wire: Wire<'_>, place: Place<'_>) -> Result<i32, ProtobufError> {
    i32::try_from(varint_of(wire, place)?).map_err(|_| place.malformed("the number is out of range"))
}

/// The fields of a message with a JSON form of its own, which may have up to `N` fields.
fn slots<'a, const N: usize>(
    bytes: &'a [u8],
    place: Place<'_>,
) -> Result<[Option<Wire<'a>>; N], ProtobufError> {
    let mut slots = [None; N];
    for item in Reader::new(bytes) {
        let (number, wire) = item?;
        match slots.get_mut(number as usize - 1) {
            Some(slot @ None) => *slot = Some(wire),
            Some(Some(_)) => return Err(place.malformed("a part of it is there twice")),
            None => return Err(place.malformed(format!("it has an unknown field {number}"))),
        }
    }
    Ok(slots)
}

/// Null if it is not set, which is written as a message without any field.
fn time(bytes: &[u8], micro: bool, place: Place<'_>) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let [seconds, nanos] = slots::<2>(bytes, place)?;
    let seconds = seconds.map_or(Ok(0), |w| varint_of(w, place))?;
    let nanos = nanos.map_or(Ok(0), |w| int32_of(w, place))?;
    if !(0..1_000_000_000).contains(&nanos) {
        return Err(place.malformed("nanoseconds are out of range"));
    }
    let at = OffsetDateTime::from_unix_timestamp(seconds).map_err(|e| place.malformed(e))?;
    if !(0..=9999).contains(&at.year()) {
        return Err(place.malformed("the year is out of range"));
    }
    let (date, clock) = (at.date(), at.time());
    let (hour, minute, second) = (clock.hour(), clock.minute(), clock.second());
    let month = u8::from(date.month());
    let whole = format!(
        "{:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}",
        date.year(),
        date.day()
    );
    Ok(match micro {
        true => format!("{whole}.{:06}Z", nanos / 1000),
        false => format!("{whole}Z"),
    }
    .into())
}

fn int_or_string(bytes: &[u8], place: Place<'_>) -> Result<Value, ProtobufError> {
    let [kind, number, text] = slots::<3>(bytes, place)?;
    let number = number.map_or(Ok(0), |w| int32_of(w, place))?;
    let text = text.map_or(Ok(""), |w| text_of(w, place))?;
    match kind.map_or(Ok(0), |w| varint_of(w, place))? {
        0 => Ok(number.into()),
        1 => Ok(text.into()),
        _ => Err(place.malformed("it is neither a number nor a string")),
    }
}

fn quantity<'a>(bytes: &'a [u8], place: Place<'_>) -> Result<&'a str, ProtobufError> {
    let [text] = slots::<1>(bytes, place)?;
    text.map_or(Ok("0"), |w| text_of(w, place))
}

fn fields_v1(bytes: &[u8], place: Place<'_>) -> Result<Value, ProtobufError> {
    let [raw] = slots::<1>(bytes, place)?;
    match raw.map_or(Ok(&b""[..]), |w| bytes_of(w, place))? {
        [] => Ok(Value::Null),
        raw => serde_json::from_slice(raw).map_err(|e| place.malformed(e)),
    }
}

fn strings(bytes: &[u8], place: Place<'_>) -> Result<Value, ProtobufError> {
    let mut list = Vec::new();
    for item in Reader::new(bytes) {
        match item? {
            (1, wire) => list.push(Value::from(text_of(wire, place)?)),
            (number, _) => return Err(place.malformed(format!("it has an unknown field {number}"))),
        }
    }
    Ok(list.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLACE: Place<'_> = Place {
        message: "M",
        field: 1,
        depth: 0,
    };

    fn of_kind(kind: &str, bytes: &[u8]) -> Result<Value, ProtobufError> {
        let id = SCHEMA.of_kind("v1", kind).expect(kind);
        message(id, bytes).map(Value::from)
    }

    #[test]
    fn types_with_a_json_form_of_their_own() {
        let check = |kind: Type, bytes: &[u8], expect: Option<Value>| {
            assert_eq!(
                value(kind, Wire::Bytes(bytes), PLACE).ok(),
                expect,
                "{kind:?} {bytes:?}"
            );
        };
        check(Type::Time, b"", Some(Value::Null));
        check(Type::Time, b"\x08\0\x10\0", Some(json!("1970-01-01T00:00:00Z")));
        let at = b"\x08\x80\xd0\x86\xcb\x06\x10\xc0\x84\x3d";
        check(Type::MicroTime, at, Some(json!("2026-01-10T01:14:40.001000Z")));
        check(Type::Time, b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f", None);
        check(Type::Time, b"\x10\xff\xff\xff\xff\x0f", None);
        check(Type::IntOrString, b"\x08\0\x10\x50\x1a\0", Some(json!(80)));
        check(
            Type::IntOrString,
            b"\x08\x01\x10\0\x1a\x04http",
            Some(json!("http")),
        );
        check(Type::IntOrString, b"\x08\x02", None);
        check(Type::Quantity, b"\x0a\x05100Mi", Some(json!("100Mi")));
        check(Type::Quantity, b"\x0a\x01\xff", None);
        check(Type::FieldsV1, b"\x0a\x07{\"a\":1}", Some(json!({"a": 1})));
        check(Type::ExtraValue, b"\x0a\x01a\x0a\x01b", Some(json!(["a", "b"])));
        let minus = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        let minus = Reader::new(minus).varint().map(Wire::Varint).expect("a varint");
        assert_eq!(value(Type::Int32, minus, PLACE), Ok(json!(-1)));
        assert!(value(Type::Int32, Wire::Varint(1 << 31), PLACE).is_err());
    }

    #[test]
    fn what_is_unknown_or_ambiguous_is_refused() {
        let unknown = of_kind("ConfigMap", b"\x0a\x03\xa2\x06\0").expect_err("field 100");
        assert_eq!(
            unknown.to_string(),
            "ObjectMeta has no field 100 that is known here"
        );
        let twice = of_kind("ConfigMap", b"\x20\x01\x20\x00").expect_err("immutable twice");
        assert_eq!(twice.to_string(), "field 4 of ConfigMap: it is there twice");
        assert!(
            of_kind("ConfigMap", b"\x12\x03\x0a\x01k\x12\x03\x0a\x01k").is_err(),
            "a key twice"
        );
        assert!(
            of_kind("ConfigMap", b"\x08\x01").is_err(),
            "a number for a message"
        );
        assert_eq!(of_kind("ConfigMap", b"\x20\0"), Ok(json!({"immutable": false})));
    }

    #[test]
    fn depth_is_bounded() {
        let id = SCHEMA.of_kind("v1", "Pod").expect("Pod");
        let pod = SCHEMA.message(id);
        assert!(nested(pod, b"\x0a\0", MAX_DEPTH - 2).is_ok());
        assert_eq!(nested(pod, b"\x0a\0", MAX_DEPTH - 1), Err(ProtobufError::TooDeep));
    }
}
