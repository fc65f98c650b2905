//! Golden bytes of every row's value; docs/format.md shows the same.

use super::*;

fn key_value(terms: Vec<IndexTerm>) -> KeyValue {
    KeyValue {
        key: Bytes::from_static(b"k"),
        value: Bytes::from_static(b"{}"),
        create_revision: Revision(2),
        mod_revision: Revision(300),
        version: 3,
        lease: LeaseId(-5),
        terms,
        splice_offset: 17,
    }
}

#[test]
fn record_bytes() {
    let plain = encode_record(&key_value(Vec::new()), 1).unwrap();
    assert_eq!(plain.as_ref(), b"\x01\x02\xfb\x2c\x01\x01\x03\x09\x11\x00{}");
    let term = IndexTerm {
        field: Bytes::from_static(b"f"),
        value: Bytes::from_static(b"vw"),
    };
    let kv = key_value(vec![term]);
    let with_terms = encode_record(&kv, 1).unwrap();
    assert_eq!(
        with_terms.as_ref(),
        b"\x01\x02\xfb\x2c\x01\x01\x03\x09\x11\x05\x01f\x02vw{}"
    );
    assert_eq!(super::key_value(kv.key.clone(), &with_terms).unwrap(), kv);
    let record = Record::decode(&with_terms).unwrap();
    assert_eq!(
        (record.modified, record.value),
        (Version::new(300, 1), b"{}".as_ref())
    );
}

#[test]
fn hist_bytes() {
    let row = encode_hist(Version::new(0x0102, 3), b"record");
    assert_eq!(row.as_ref(), b"\0\0\0\0\0\0\x01\x02\0\0\0\x03record");
    assert_eq!(
        split_hist(&row).unwrap(),
        (Version::new(0x0102, 3), b"record".as_ref())
    );
}

#[test]
fn log_bytes() {
    let created = LogRow {
        op: LogOp::Put,
        prev: None,
        key: b"k",
    };
    assert_eq!(created.encode().unwrap().as_ref(), b"\x01\x00\x00k");
    let deleted = LogRow {
        op: LogOp::Delete,
        prev: Some(Version::new(300, 2)),
        key: b"k",
    };
    assert_eq!(
        deleted.encode().unwrap().as_ref(),
        b"\x01\x01\x01\xfb\x2c\x01\x02k"
    );
    assert_eq!(LogRow::decode(&deleted.encode().unwrap()).unwrap(), deleted);
}

#[test]
fn lease_bytes() {
    let row = LeaseRow::new(60, 7);
    assert_eq!(row.encode().unwrap().as_ref(), b"\x01\x78\x0e");
    assert_eq!(LeaseRow::decode(&row.encode().unwrap()).unwrap(), row);
}

#[test]
fn state_bytes() {
    let row = StateRow {
        format: FORMAT,
        revision: 9,
        compact_revision: 4,
        applied: Some((2, 300)),
        state_hash: [0xab; 32],
    };
    let expected = [&b"\x01\x09\x04\x01\x02\xfb\x2c\x01"[..], &[0xab; 32]].concat();
    assert_eq!(row.encode().unwrap(), expected);
    assert_eq!(StateRow::decode(&expected).unwrap(), row);
}

#[test]
fn membership_bytes() {
    let row = encode_membership((2, 300), b"opaque").unwrap();
    assert_eq!(row.as_ref(), b"\x01\x02\xfb\x2c\x01opaque");
    assert_eq!(
        decode_membership(&row).unwrap(),
        ((2, 300), Bytes::from_static(b"opaque"))
    );
}

#[test]
fn other_layouts_and_cut_rows_are_refused() {
    let mut row = encode_record(&key_value(Vec::new()), 1).unwrap().to_vec();
    assert!(Record::decode(&row[..5]).is_err());
    row[0] = 2;
    let error = Record::decode(&row).unwrap_err().to_string();
    assert_eq!(error, "corrupt record: layout 2, this program knows 1");
    assert!(LeaseRow::decode(b"\x01\x78\x0e\x00").is_err());
}
