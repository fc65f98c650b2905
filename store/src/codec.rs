//! The values of the column families: a bincode header, then raw bytes; docs/format.md describes them.
//!
//! This is the one module that knows bincode. Every value starts with the version of its layout, so that a
//! later layout can live beside this one. [`Record`] is a version of a key, [`LogRow`] a change.

use bincode::{BorrowDecode, Decode, Encode, config};
use bytes::Bytes;

use crate::{
    IndexTerm, KeyValue, LeaseId, Revision, RowTerms, ScanRow, StoreError,
    keys::{VERSION_LEN, Version},
};

/// The layout of everything in the database; a database of another one is refused.
pub const FORMAT: u8 = 1;

/// Room for a usual record header without its terms.
const HEADER_SPACE: usize = 40;

const CONFIG: config::Configuration = config::standard();

/// What stands before the value's bytes in `cur`, and (after the end version) in `hist`.
#[derive(Debug, Encode, BorrowDecode)]
struct RecordHeader<'a> {
    format: u8,
    create: u64,
    main: u64,
    sub: u32,
    version: u64,
    lease: i64,
    splice: u32,
    /// Encoded terms: scans pass over them without looking inside.
    terms: &'a [u8],
}

/// One version of a key as stored, borrowed from its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub create: i64,
    pub modified: Version,
    pub version: i64,
    pub lease: LeaseId,
    pub splice_offset: u32,
    terms: &'a [u8],
    pub value: &'a [u8],
}

impl<'a> Record<'a> {
    pub fn decode(row: &'a [u8]) -> Result<Self, StoreError> {
        let (header, len): (RecordHeader<'a>, usize) =
            bincode::borrow_decode_from_slice(row, CONFIG).map_err(|error| corrupt("record", &error))?;
        check_format("record", header.format)?;
        Ok(Self {
            create: header.create as i64,
            modified: Version::new(header.main as i64, header.sub),
            version: header.version as i64,
            lease: LeaseId(header.lease),
            splice_offset: header.splice,
            terms: header.terms,
            value: &row[len..],
        })
    }

    pub fn scan_row(&self, key: &'a [u8]) -> ScanRow<'a> {
        ScanRow {
            key,
            value: self.value,
            mod_revision: self.modified.revision(),
            create_revision: Revision(self.create),
            version: self.version,
            lease: self.lease,
            splice_offset: self.splice_offset,
            terms: RowTerms(self.terms),
        }
    }

    pub fn terms(&self) -> Result<Vec<IndexTerm>, StoreError> {
        decode_terms(self.terms)
    }

    /// See [`decode_terms`].
    pub fn encoded_terms(&self) -> &'a [u8] {
        self.terms
    }
}

/// A record and its key as the model's noun; `row` is shared, not copied.
pub fn key_value(key: Bytes, row: &Bytes) -> Result<KeyValue, StoreError> {
    let record = Record::decode(row)?;
    Ok(KeyValue {
        key,
        value: row.slice_ref(record.value),
        create_revision: Revision(record.create),
        mod_revision: record.modified.revision(),
        version: record.version,
        lease: record.lease,
        terms: record.terms()?,
        splice_offset: record.splice_offset,
    })
}

/// The row of `kv` in `cur`; the one copy of its value.
pub fn encode_record(kv: &KeyValue, sub: u32) -> Result<Bytes, StoreError> {
    let terms = encode_terms(&kv.terms)?;
    let header = RecordHeader {
        format: FORMAT,
        create: kv.create_revision.0 as u64,
        main: kv.mod_revision.0 as u64,
        sub,
        version: kv.version as u64,
        lease: kv.lease.0,
        splice: kv.splice_offset,
        terms: &terms,
    };
    let mut row = Vec::with_capacity(HEADER_SPACE + terms.len() + kv.value.len());
    bincode::encode_into_std_write(header, &mut row, CONFIG).map_err(|error| unencodable(&error))?;
    row.extend_from_slice(&kv.value);
    Ok(row.into())
}

/// A `hist` row: the version that superseded the record, then the record.
pub fn encode_hist(end: Version, record: &[u8]) -> Bytes {
    let mut row = Vec::with_capacity(VERSION_LEN + record.len());
    row.extend_from_slice(&end.to_bytes());
    row.extend_from_slice(record);
    row.into()
}

/// The end version, and where the record starts.
pub fn split_hist(row: &[u8]) -> Result<(Version, &[u8]), StoreError> {
    let end = Version::from_bytes(row).ok_or_else(|| StoreError::Corrupt {
        what: "hist row",
        detail: format!("{} bytes", row.len()),
    })?;
    Ok((end, &row[VERSION_LEN..]))
}

#[derive(Debug, Encode, Decode)]
struct LogHeader {
    format: u8,
    op: LogOp,
    /// The version of the same key before this one.
    prev: Option<(u64, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum LogOp {
    Put,
    Delete,
}

/// One change in `log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRow<'a> {
    pub op: LogOp,
    pub prev: Option<Version>,
    pub key: &'a [u8],
}

impl<'a> LogRow<'a> {
    pub fn decode(row: &'a [u8]) -> Result<Self, StoreError> {
        let (header, len): (LogHeader, usize) =
            bincode::decode_from_slice(row, CONFIG).map_err(|error| corrupt("log row", &error))?;
        check_format("log row", header.format)?;
        let prev = header.prev.map(|(main, sub)| Version::new(main as i64, sub));
        Ok(Self {
            op: header.op,
            prev,
            key: &row[len..],
        })
    }

    pub fn encode(&self) -> Result<Bytes, StoreError> {
        let prev = self.prev.map(|prev| (prev.main as u64, prev.sub));
        let mut row = Vec::with_capacity(24 + self.key.len());
        let header = LogHeader {
            format: FORMAT,
            op: self.op,
            prev,
        };
        bincode::encode_into_std_write(header, &mut row, CONFIG).map_err(|error| unencodable(&error))?;
        row.extend_from_slice(self.key);
        Ok(row.into())
    }
}

/// Seconds granted and seconds left as last checkpointed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct LeaseRow {
    format: u8,
    pub ttl_s: i64,
    pub remaining_s: i64,
}

impl LeaseRow {
    pub fn new(ttl_s: i64, remaining_s: i64) -> Self {
        Self {
            format: FORMAT,
            ttl_s,
            remaining_s,
        }
    }

    pub fn encode(&self) -> Result<Bytes, StoreError> {
        encode(self)
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let lease: Self = decode("lease", row)?;
        check_format("lease", lease.format)?;
        Ok(lease)
    }
}

/// `meta`'s fixed-size state: changes with every apply.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct StateRow {
    pub format: u8,
    pub revision: u64,
    pub compact_revision: u64,
    /// (term, index)
    pub applied: Option<(u64, u64)>,
    pub state_hash: [u8; 32],
}

impl StateRow {
    pub fn encode(&self) -> Result<Bytes, StoreError> {
        encode(self)
    }

    pub fn decode(row: &[u8]) -> Result<Self, StoreError> {
        let state: Self = decode("state", row)?;
        check_format("state", state.format)?;
        Ok(state)
    }
}

/// The last applied membership: its position, then Raft's bytes.
pub fn encode_membership(position: (u64, u64), body: &[u8]) -> Result<Bytes, StoreError> {
    let mut row = Vec::with_capacity(24 + body.len());
    bincode::encode_into_std_write((FORMAT, position), &mut row, CONFIG)
        .map_err(|error| unencodable(&error))?;
    row.extend_from_slice(body);
    Ok(row.into())
}

pub fn decode_membership(row: &Bytes) -> Result<((u64, u64), Bytes), StoreError> {
    let ((format, position), len): ((u8, (u64, u64)), usize) =
        bincode::decode_from_slice(row, CONFIG).map_err(|error| corrupt("membership", &error))?;
    check_format("membership", format)?;
    Ok((position, row.slice(len..)))
}

/// One after the other, without a count.
fn encode_terms(terms: &[IndexTerm]) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    for term in terms {
        let term = (term.field.as_ref(), term.value.as_ref());
        bincode::encode_into_std_write(term, &mut bytes, CONFIG).map_err(|error| unencodable(&error))?;
    }
    Ok(bytes)
}

/// Calls `visit` with the field and the value of each encoded term.
pub fn each_term<'a>(
    mut bytes: &'a [u8],
    visit: &mut dyn FnMut(&'a [u8], &'a [u8]),
) -> Result<(), StoreError> {
    while !bytes.is_empty() {
        let ((field, value), len): ((&'a [u8], &'a [u8]), usize) =
            bincode::borrow_decode_from_slice(bytes, CONFIG)
                .map_err(|error| corrupt("index terms", &error))?;
        visit(field, value);
        bytes = &bytes[len..];
    }
    Ok(())
}

pub fn decode_terms(bytes: &[u8]) -> Result<Vec<IndexTerm>, StoreError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    // One allocation for all of them.
    let all = Bytes::copy_from_slice(bytes);
    let mut terms = Vec::new();
    let share = |part: &[u8]| all.slice_ref(part);
    each_term(&all, &mut |field, value| {
        terms.push(IndexTerm {
            field: share(field),
            value: share(value),
        })
    })?;
    Ok(terms)
}

fn encode(row: impl Encode) -> Result<Bytes, StoreError> {
    bincode::encode_to_vec(row, CONFIG)
        .map(Bytes::from)
        .map_err(|error| unencodable(&error))
}

fn decode<T: Decode<()>>(what: &'static str, row: &[u8]) -> Result<T, StoreError> {
    let (value, len) = bincode::decode_from_slice(row, CONFIG).map_err(|error| corrupt(what, &error))?;
    if len != row.len() {
        return Err(StoreError::Corrupt {
            what,
            detail: format!("{} bytes too many", row.len() - len),
        });
    }
    Ok(value)
}

fn check_format(what: &'static str, format: u8) -> Result<(), StoreError> {
    if format == FORMAT {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        what,
        detail: format!("layout {format}, this program knows {FORMAT}"),
    })
}

fn corrupt(what: &'static str, error: &bincode::error::DecodeError) -> StoreError {
    StoreError::Corrupt {
        what,
        detail: error.to_string(),
    }
}

fn unencodable(error: &bincode::error::EncodeError) -> StoreError {
    StoreError::Corrupt {
        what: "row to be written",
        detail: error.to_string(),
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
