//! How keys are laid out in each column family; docs/format.md describes every byte.
//!
//! All layouts sort bytewise in the order in which they are walked. [`Version`] is a place in the sequence of
//! changes: a main revision and the number of the change inside it.

use bytes::Bytes;

use crate::{IndexTerm, LeaseId, Revision, StoreError};

/// One change: main revision, and its order inside that revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    pub main: i64,
    pub sub: u32,
}

pub const VERSION_LEN: usize = 12;

impl Version {
    pub const fn new(main: i64, sub: u32) -> Self {
        Self { main, sub }
    }

    pub const fn first_of(main: i64) -> Self {
        Self { main, sub: 0 }
    }

    pub const fn last_of(main: i64) -> Self {
        Self { main, sub: u32::MAX }
    }

    pub fn revision(self) -> Revision {
        Revision(self.main)
    }

    pub fn to_bytes(self) -> [u8; VERSION_LEN] {
        let mut bytes = [0; VERSION_LEN];
        bytes[..8].copy_from_slice(&self.main.to_be_bytes());
        bytes[8..].copy_from_slice(&self.sub.to_be_bytes());
        bytes
    }

    /// From the first bytes of `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (main, rest) = bytes.split_first_chunk::<8>()?;
        let (sub, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            main: i64::from_be_bytes(*main),
            sub: u32::from_be_bytes(*sub),
        })
    }
}

const ESCAPED_ZERO: [u8; 2] = [0x00, 0xff];
const TERMINATOR: [u8; 2] = [0x00, 0x01];
/// Sorts right after every row of one escaped key.
const AFTER_TERMINATOR: [u8; 2] = [0x00, 0x02];

/// Appends `part` so that no longer part sorts before it and parts keep their order.
fn push_escaped(out: &mut Vec<u8>, part: &[u8]) {
    let mut rest = part;
    while let Some(at) = rest.iter().position(|byte| *byte == 0) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&ESCAPED_ZERO);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
}

fn escaped(part: &[u8], end: [u8; 2], spare: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(part.len() + 2 + spare);
    push_escaped(&mut out, part);
    out.extend_from_slice(&end);
    out
}

/// The row of a superseded version in `hist`.
pub fn hist(key: &[u8], version: Version) -> Bytes {
    let mut out = escaped(key, TERMINATOR, VERSION_LEN);
    out.extend_from_slice(&version.to_bytes());
    out.into()
}

/// Where `hist` rows of keys at or above `key` start.
pub fn hist_from(key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(key.len() + 2);
    push_escaped(&mut out, key);
    out
}

/// Right after the last `hist` row of `key`.
pub fn hist_after(key: &[u8]) -> Vec<u8> {
    escaped(key, AFTER_TERMINATOR, 0)
}

/// Splits a `hist` row's key; the user key is written into `key`.
pub fn split_hist(row: &[u8], key: &mut Vec<u8>) -> Result<Version, StoreError> {
    key.clear();
    let corrupt = || corrupt("hist key", row);
    let mut at = 0;
    loop {
        let zero = row[at..].iter().position(|byte| *byte == 0).ok_or_else(corrupt)? + at;
        key.extend_from_slice(&row[at..zero]);
        match row.get(zero + 1) {
            Some(0xff) => key.push(0),
            Some(0x01) => {
                let version = &row[zero + 2..];
                let exact = version.len() == VERSION_LEN;
                return Version::from_bytes(version).filter(|_| exact).ok_or_else(corrupt);
            }
            _ => return Err(corrupt()),
        }
        at = zero + 2;
    }
}

pub fn log(version: Version) -> Bytes {
    Bytes::copy_from_slice(&version.to_bytes())
}

pub fn split_log(row: &[u8]) -> Result<Version, StoreError> {
    let exact = row.len() == VERSION_LEN;
    Version::from_bytes(row)
        .filter(|_| exact)
        .ok_or_else(|| corrupt("log key", row))
}

/// The index rows of all keys with a term.
pub fn idx_prefix(term: &IndexTerm) -> Vec<u8> {
    let mut out = escaped(&term.field, TERMINATOR, term.value.len() + 2);
    push_escaped(&mut out, &term.value);
    out.extend_from_slice(&TERMINATOR);
    out
}

pub fn idx(term: &IndexTerm, key: &[u8]) -> Bytes {
    let mut out = idx_prefix(term);
    out.extend_from_slice(key);
    out.into()
}

pub fn lease(id: LeaseId) -> Bytes {
    Bytes::copy_from_slice(&lease_bytes(id))
}

pub fn split_lease(row: &[u8]) -> Result<LeaseId, StoreError> {
    let bytes: [u8; 8] = row.try_into().map_err(|_| corrupt("lease key", row))?;
    Ok(LeaseId((u64::from_be_bytes(bytes) ^ SIGN) as i64))
}

pub fn lease_key(id: LeaseId, key: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(8 + key.len());
    out.extend_from_slice(&lease_bytes(id));
    out.extend_from_slice(key);
    out.into()
}

/// Flipping the sign bit makes unsigned byte order the order of signed numbers.
const SIGN: u64 = 1 << 63;

fn lease_bytes(id: LeaseId) -> [u8; 8] {
    (id.0 as u64 ^ SIGN).to_be_bytes()
}

/// The first byte string that sorts after everything that starts with `prefix`.
pub fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn corrupt(what: &'static str, row: &[u8]) -> StoreError {
    StoreError::Corrupt {
        what,
        detail: format!("{row:02x?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(
            hist(b"a\0b", Version::new(0x0102, 3)).as_ref(),
            b"a\x00\xffb\x00\x01\x00\x00\x00\x00\x00\x00\x01\x02\x00\x00\x00\x03"
        );
        assert_eq!(log(Version::new(2, 1)).as_ref(), b"\0\0\0\0\0\0\0\x02\0\0\0\x01");
        let term = IndexTerm {
            field: Bytes::from_static(b"f\0"),
            value: Bytes::from_static(b"v"),
        };
        assert_eq!(idx(&term, b"k\0").as_ref(), b"f\x00\xff\x00\x01v\x00\x01k\x00");
        assert_eq!(lease(LeaseId(5)).as_ref(), b"\x80\0\0\0\0\0\0\x05");
        assert_eq!(
            lease_key(LeaseId(-1), b"k").as_ref(),
            b"\x7f\xff\xff\xff\xff\xff\xff\xffk"
        );
    }

    proptest! {
        #[test]
        fn hist_rows_sort_by_key_then_version(
            a in (prop::collection::vec(0u8..3, 0..5), 0i64..4, 0u32..3),
            b in (prop::collection::vec(0u8..3, 0..5), 0i64..4, 0u32..3),
        ) {
            let row = |x: &(Vec<u8>, i64, u32)| hist(&x.0, Version::new(x.1, x.2));
            prop_assert_eq!(row(&a).cmp(&row(&b)), a.cmp(&b));
            let mut key = Vec::new();
            let version = split_hist(&row(&a), &mut key).unwrap();
            prop_assert_eq!((key, version.main, version.sub), a.clone());
            // Bounds agree with the order of keys.
            prop_assert_eq!(row(&a).as_ref() >= hist_from(&b.0).as_slice(), a.0 >= b.0);
            prop_assert_eq!(row(&a).as_ref() >= hist_after(&b.0).as_slice(), a.0 > b.0);
        }

        #[test]
        fn leases_sort_by_number(a: i64, b: i64) {
            prop_assert_eq!(lease(LeaseId(a)).cmp(&lease(LeaseId(b))), a.cmp(&b));
            prop_assert_eq!(split_lease(&lease(LeaseId(a))).unwrap(), LeaseId(a));
        }
    }
}
