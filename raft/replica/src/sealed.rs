//! Small JSON files that a member trusts with its life: written whole or not at all, and sealed with a checksum.
//!
//! A sealed file is one JSON object with two fields beside its own: `format_version`, and `checksum`, the CRC-32C (eight
//! hexadecimal digits) of the object without `checksum`, its keys sorted, without white space. Whoever lays the file out
//! anew does not break the seal; whoever changes a digit does.
//!
//! Files of format 1 were written without a checksum. They are read once more, and replaced at the next save.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::planted;

/// An ID as humans see it, and as it stands in files: JSON numbers do not hold 64 bits.
pub mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{id:x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

/// The format that is written.
pub const FORMAT_VERSION: u64 = 2;
const UNSEALED_VERSION: u64 = 1;
/// More than any of these files ever has: the largest names a thousand members.
const MAX_BYTES: u64 = 1 << 20;

/// What a file held.
#[derive(Debug, PartialEq, Eq)]
pub enum Found<T> {
    Sealed(T),
    /// Of format 1: nothing vouches for its bytes.
    Unsealed(T),
}

impl<T> Found<T> {
    pub fn into_inner(self) -> T {
        match self {
            Self::Sealed(content) | Self::Unsealed(content) => content,
        }
    }
}

/// Reads a file; `None`: there is none. `unsealed` makes today's object of what format 1 had there.
pub fn load<T: DeserializeOwned>(
    path: &Path,
    unsealed: impl FnOnce(Value) -> Option<Map<String, Value>>,
) -> io::Result<Option<Found<T>>> {
    let named = |text: String| io::Error::other(format!("{}: {text}", path.display()));
    let bytes = match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_BYTES => {
            return Err(named(format!("{} bytes are more than it can have", meta.len())));
        }
        Ok(_) => fs::read(path).map_err(|error| named(error.to_string()))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(error.to_string())),
    };
    open(&bytes, unsealed).map(Some).map_err(named)
}

fn open<T: DeserializeOwned>(
    bytes: &[u8],
    unsealed: impl FnOnce(Value) -> Option<Map<String, Value>>,
) -> Result<Found<T>, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| format!("damaged: {error}"))?;
    let parse = |fields| serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string());
    if is_unsealed(&value) {
        let fields = unsealed(value).ok_or("damaged: it is no file of format 1")?;
        return parse(fields).map(Found::Unsealed);
    }
    let Value::Object(mut fields) = value else {
        return Err("damaged: it is no JSON object".into());
    };
    let version = fields.remove("format_version");
    let Some(version) = version.as_ref().and_then(Value::as_u64) else {
        return Err("damaged: format_version is missing".into());
    };
    if version != FORMAT_VERSION {
        return Err(format!("format version {version} is not known to this program"));
    }
    let Some(Value::String(told)) = fields.remove("checksum") else {
        return Err("damaged: checksum is missing".into());
    };
    let found = checksum(&fields);
    if told != found {
        return Err(format!("damaged: its checksum is {found}, not {told}"));
    }
    parse(fields).map(Found::Sealed)
}

/// Format 1 was an array, or an object that says 1 and has no checksum.
fn is_unsealed(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.get("format_version").and_then(Value::as_u64) == Some(UNSEALED_VERSION)
                && !fields.contains_key("checksum")
        }
        value => value.is_array(),
    }
}

/// Of the fields and the format version.
fn checksum(fields: &Map<String, Value>) -> String {
    let mut covered = fields.clone();
    covered.insert("format_version".into(), FORMAT_VERSION.into());
    let mut text = String::new();
    write_sorted(&Value::Object(covered), &mut text);
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}

/// JSON with sorted keys, whatever order the map keeps.
fn write_sorted(value: &Value, into: &mut String) {
    let list = |into: &mut String, ends: [char; 2], items: &mut dyn FnMut(&mut String)| {
        into.push(ends[0]);
        items(into);
        into.push(ends[1]);
    };
    match value {
        Value::Object(fields) => list(into, ['{', '}'], &mut |into| {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (number, (name, value)) in fields.into_iter().enumerate() {
                into.push_str(if number > 0 { "," } else { "" });
                into.push_str(&Value::from(name.as_str()).to_string());
                into.push(':');
                write_sorted(value, into);
            }
        }),
        Value::Array(items) => list(into, ['[', ']'], &mut |into| {
            for (number, item) in items.iter().enumerate() {
                into.push_str(if number > 0 { "," } else { "" });
                write_sorted(item, into);
            }
        }),
        plain => into.push_str(&plain.to_string()),
    }
}

/// Replaces the file; durable when this returns, and the old one stays whole until then.
pub fn save<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    let Value::Object(mut fields) = serde_json::to_value(content)? else {
        return Err(io::Error::other("only an object can be sealed"));
    };
    let checksum = checksum(&fields);
    fields.insert("format_version".into(), FORMAT_VERSION.into());
    fields.insert("checksum".into(), checksum.into());
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec_pretty(&fields)?)?;
    if planted("identity-not-synced") {
        return fs::rename(&new, path);
    }
    file.sync_all()?;
    fs::rename(&new, path)?;
    let dir = path
        .parent()
        .ok_or_else(|| io::Error::other("a file without a directory"))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Content {
        zeta: String,
        alpha: Vec<u64>,
    }

    fn content() -> Content {
        Content {
            zeta: "a\"b".into(),
            alpha: vec![1, 20],
        }
    }

    fn read(bytes: &[u8]) -> Result<Found<Content>, String> {
        open(bytes, |value| match value {
            Value::Object(mut fields) => {
                fields.remove("format_version");
                Some(fields)
            }
            _ => None,
        })
    }

    #[test]
    fn golden_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        save(&path, &content()).unwrap();
        let fields: Map<String, Value> = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let covered = r#"{"alpha":[1,20],"format_version":2,"zeta":"a\"b"}"#;
        let expected = format!("{:08x}", crc32c::crc32c(covered.as_bytes()));
        assert_eq!(fields["checksum"], Value::from(expected));
        assert_eq!(fields["format_version"], Value::from(2));
        let found: Option<Found<Content>> = load(&path, |_| None).unwrap();
        assert_eq!(found, Some(Found::Sealed(content())));
    }

    #[test]
    fn no_changed_byte_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        save(&path, &content()).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                match read(&damaged) {
                    Ok(found) => assert_eq!(found, Found::Sealed(content()), "white space only, byte {at}"),
                    Err(text) => assert!(!text.is_empty() && !text.contains('\n'), "{text}"),
                }
            }
            if whole[at..].iter().any(|byte| !byte.is_ascii_whitespace()) {
                assert!(read(&whole[..at]).is_err(), "{at} bytes");
            }
        }
        assert!(read(b"").is_err() && read(b"null").is_err() && read(b"{}").is_err());
    }

    #[test]
    fn the_order_of_keys_and_white_space_do_not_matter() {
        let checksum = checksum(&serde_json::from_str(r#"{"zeta":"x","alpha":[]}"#).unwrap());
        let text = format!(r#"{{"format_version":2, "zeta":"x", "checksum":"{checksum}","alpha":[ ]}}"#);
        assert!(matches!(read(text.as_bytes()), Ok(Found::Sealed(_))));
    }

    #[test]
    fn format_1_is_still_read_and_later_ones_are_not() {
        let old = read(br#"{"format_version":1,"zeta":"x","alpha":[]}"#).unwrap();
        assert!(matches!(old, Found::Unsealed(_)));
        // Not a sealed file of which one digit is wrong.
        assert!(read(br#"{"format_version":1,"zeta":"x","alpha":[],"checksum":"00000000"}"#).is_err());
        let error = read(br#"{"format_version":3,"zeta":"x","alpha":[],"checksum":"00000000"}"#);
        assert_eq!(
            error.unwrap_err(),
            "format version 3 is not known to this program"
        );
    }

    #[test]
    fn a_file_too_large_to_be_one_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        let error = load::<Content>(&path, |_| None).unwrap_err().to_string();
        assert!(error.contains("are more than it can have"), "{error}");
    }
}
