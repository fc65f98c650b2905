//! Objects as stored: `{"apiVersion":…,"kind":…,"metadata":{` first, without a resourceVersion.
//!
//! The record keeps the offset right behind `"metadata":{`; whoever sends an object out splices
//! `"resourceVersion":"N",` in there by copying slices. Nothing here searches in stored bytes.

use barque_machinery::{
    counters::{FRAMES_ENCODED, OBJECTS_DECODED, OBJECTS_ENCODED},
    patch::MAX_DEPTH,
    status::Status,
};
use bytes::Bytes;
use serde_json::{Map, Value};

/// An object's stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub value: Bytes,
    pub splice_offset: u32,
}

/// A stored object with the revision that is its resourceVersion.
#[derive(Clone, Copy)]
pub struct StoredRef<'a> {
    pub key: &'a [u8],
    pub value: &'a [u8],
    pub splice_offset: u32,
    pub revision: i64,
}

/// Serialises an object for storage. Every write comes through here, whatever form its body had.
pub fn encode(object: &Value) -> Result<Encoded, Status> {
    OBJECTS_ENCODED.add(1);
    if !is_within(object, MAX_DEPTH) {
        return Err(Status::bad_request(format!(
            "the object nests more than {MAX_DEPTH} levels deep"
        )));
    }
    let fields = object
        .as_object()
        .ok_or_else(|| Status::internal("an object that is no JSON object"))?;
    let metadata = fields.get("metadata").and_then(Value::as_object);
    let metadata = metadata.ok_or_else(|| Status::internal("an object without metadata"))?;
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(b"{\"apiVersion\":");
    write(&mut out, &fields["apiVersion"])?;
    out.extend_from_slice(b",\"kind\":");
    write(&mut out, &fields["kind"])?;
    out.extend_from_slice(b",\"metadata\":{");
    let splice_offset = u32::try_from(out.len()).map_err(Status::internal)?;
    // What is spliced in ends with a comma, so something must follow it: an object always has a name.
    if !write_fields(&mut out, metadata, &["resourceVersion"], false)? {
        return Err(Status::internal("an object with empty metadata"));
    }
    out.push(b'}');
    write_fields(&mut out, fields, &["apiVersion", "kind", "metadata"], true)?;
    out.push(b'}');
    Ok(Encoded {
        value: out.into(),
        splice_offset,
    })
}

/// Parses a stored object and gives it its resourceVersion.
pub fn decode(stored: StoredRef<'_>) -> Result<Value, Status> {
    OBJECTS_DECODED.add(1);
    check_readable(stored)?;
    let mut object: Value =
        serde_json::from_slice(stored.value).map_err(|e| unreadable(stored.key, &e.to_string()))?;
    object["metadata"]["resourceVersion"] = stored.revision.to_string().into();
    Ok(object)
}

/// Appends the object as clients see it.
pub fn splice(out: &mut Vec<u8>, stored: StoredRef<'_>) -> Result<(), Status> {
    check_readable(stored)?;
    let (before, after) = stored.value.split_at(stored.splice_offset as usize);
    out.reserve(stored.value.len() + 48);
    out.extend_from_slice(before);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    write_decimal(out, stored.revision);
    out.extend_from_slice(b"\",");
    out.extend_from_slice(after);
    Ok(())
}

/// The object as clients see it.
pub fn spliced(stored: StoredRef<'_>) -> Result<Bytes, Status> {
    let mut out = Vec::with_capacity(stored.value.len() + 48);
    splice(&mut out, stored)?;
    Ok(out.into())
}

/// Appends a watch frame of `kind` (`ADDED`, …) around the object.
pub fn splice_frame(out: &mut Vec<u8>, kind: &str, stored: StoredRef<'_>) -> Result<(), Status> {
    FRAMES_ENCODED.add(1);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    splice(out, stored)?;
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// Only plain JSON can be spliced; an envelope of a later version cannot be read by this one.
pub fn check_readable(stored: StoredRef<'_>) -> Result<(), Status> {
    let offset = stored.splice_offset as usize;
    let plain = stored.value.first() == Some(&b'{') && offset > 0 && offset < stored.value.len();
    if plain && stored.value[offset - 1] == b'{' {
        return Ok(());
    }
    Err(unreadable(stored.key, "not written by this API server"))
}

fn unreadable(key: &[u8], why: &str) -> Status {
    Status::internal(format!(
        "unable to read the stored object {}: {why}",
        String::from_utf8_lossy(key)
    ))
}

/// Whether nothing nests deeper than `levels`; looks no further than that.
fn is_within(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels > 0 && items.iter().all(|v| is_within(v, levels - 1)),
        Value::Object(fields) => levels > 0 && fields.values().all(|v| is_within(v, levels - 1)),
        _ => true,
    }
}

/// Writes the fields but those in `without`; `true` when there was any.
fn write_fields(
    out: &mut Vec<u8>,
    fields: &Map<String, Value>,
    without: &[&str],
    mut comma: bool,
) -> Result<bool, Status> {
    let mut any = false;
    for (key, value) in fields.iter().filter(|(k, _)| !without.contains(&k.as_str())) {
        if comma {
            out.push(b',');
        }
        serde_json::to_writer(&mut *out, key).map_err(Status::internal)?;
        out.push(b':');
        write(out, value)?;
        comma = true;
        any = true;
    }
    Ok(any)
}

fn write(out: &mut Vec<u8>, value: &Value) -> Result<(), Status> {
    serde_json::to_writer(out, value).map_err(Status::internal)
}

fn write_decimal(out: &mut Vec<u8>, number: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(encoded: &Encoded, revision: i64) -> StoredRef<'_> {
        StoredRef {
            key: b"/registry/x",
            value: &encoded.value,
            splice_offset: encoded.splice_offset,
            revision,
        }
    }

    #[test]
    fn what_goes_in_comes_out_with_its_revision() {
        let mut object = json!({
            "data": {"a": "\"metadata\":{"}, "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"resourceVersion": "7", "name": "x", "labels": {"a": "b"}},
        });
        let encoded = encode(&object).unwrap();
        assert!(
            encoded
                .value
                .starts_with(b"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"")
        );
        assert!(!encoded.value.windows(15).any(|w| w == b"resourceVersion"));
        object["metadata"]["resourceVersion"] = "1234567890123".into();
        let out = spliced(stored(&encoded, 1_234_567_890_123)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), object);
        assert_eq!(decode(stored(&encoded, 1_234_567_890_123)).unwrap(), object);
    }

    #[test]
    fn what_is_stored_can_be_read_however_deep_it_is() {
        // Two levels are the object's and its metadata's.
        let nested = |levels: usize| {
            let innermost = json!([]);
            let value = (1..levels - 2).fold(innermost, |inner, i| match i % 2 {
                0 => json!([inner]),
                _ => json!({"f": inner}),
            });
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "deep": value}})
        };
        let encoded = encode(&nested(MAX_DEPTH)).unwrap();
        assert!(decode(stored(&encoded, 1)).is_ok());
        let refused = encode(&nested(MAX_DEPTH + 1)).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (400, "the object nests more than 100 levels deep")
        );
    }

    #[test]
    fn foreign_bytes_are_an_error() {
        for (value, splice_offset) in [
            (&b"k8s\0..."[..], 3),
            (b"{\"a\":1}", 0),
            (b"{\"a\":1}", 3),
            (b"{", 9),
        ] {
            let foreign = StoredRef {
                key: b"/registry/x",
                value,
                splice_offset,
                revision: 1,
            };
            assert_eq!(spliced(foreign).map_err(|s| s.code), Err(500));
        }
    }

    #[test]
    fn decimals() {
        let check = |n: i64| {
            let mut out = Vec::new();
            write_decimal(&mut out, n);
            assert_eq!(String::from_utf8(out).unwrap(), n.to_string());
        };
        [0, 1, 9, 10, i64::MAX, -5, i64::MIN].into_iter().for_each(check);
    }
}
