//! The tail of RocksDB's manifest, which a power cut may tear.
//!
//! RocksDB appends records to its manifest, and syncs. Of what it had not synced when the power went any sectors may be
//! there. It takes a record that the file's end cuts off for one that was not finished, but one with holes for damage,
//! and refuses to open the database. Nobody was told of what such a record says, so it can go: the state from before it
//! is whole, and the Raft log has what followed (a log that was purged beyond that state is refused by its member).
//!
//! The format is that of RocksDB's logs: blocks of 32 KiB with records in them, each with a masked CRC-32C, a length and
//! a type, and none across two blocks.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
};

const BLOCK_BYTES: usize = 32 << 10;
const HEADER_BYTES: usize = 7;
/// Of changes to the manifest there are never as many under way; what is broken before that is damage.
const LONGEST_TAIL: usize = BLOCK_BYTES;

/// The manifest of the database in this directory, if it says which.
pub(super) fn current(dir: &Path) -> Option<PathBuf> {
    let name = fs::read_to_string(dir.join("CURRENT")).ok()?;
    let name = name.trim_end();
    name.starts_with("MANIFEST-").then(|| dir.join(name))
}

/// Removes what is torn at the manifest's end; `false` if nothing is, or too much.
pub(super) fn cut_torn_tail(manifest: &Path) -> io::Result<bool> {
    let bytes = fs::read(manifest)?;
    let whole = whole_len(&bytes);
    let torn = bytes.len() - whole;
    if whole == 0 || torn == 0 || torn > LONGEST_TAIL {
        return Ok(false);
    }
    let file = OpenOptions::new().write(true).open(manifest)?;
    file.set_len(whole as u64)?;
    file.sync_all()?;
    tracing::warn!(
        manifest = %manifest.display(), whole, torn,
        "the end of RocksDB's manifest was torn by a power cut and is removed; the log has what it lacks"
    );
    Ok(true)
}

/// Up to where every record is whole, in bytes.
fn whole_len(manifest: &[u8]) -> usize {
    let (mut at, mut whole) = (0, 0);
    while let Some(fragment) = Fragment::at(manifest, at) {
        at = fragment.end;
        if fragment.ends_a_record {
            whole = at;
        }
    }
    whole
}

/// A record, or what of one lies in a block.
struct Fragment {
    end: usize,
    ends_a_record: bool,
}

impl Fragment {
    /// The next one from here; `None`: there is none, or it is broken.
    fn at(manifest: &[u8], at: usize) -> Option<Fragment> {
        let left_in_block = BLOCK_BYTES - at % BLOCK_BYTES;
        let start = match left_in_block < HEADER_BYTES {
            true => at + left_in_block,
            false => at,
        };
        let header = manifest.get(start..start + HEADER_BYTES)?;
        let checksum = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let end = start + HEADER_BYTES + len;
        // Type and payload.
        let covered = manifest.get(start + HEADER_BYTES - 1..end)?;
        // One that is whole, or the first, a middle or the last fragment.
        let ends_a_record = match header[6] {
            1 | 4 => true,
            2 | 3 => false,
            _ => return None,
        };
        (masked(crc32c::crc32c(covered)) == checksum).then_some(Fragment { end, ends_a_record })
    }
}

fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::{Batch, Engine, Family, rocks};

    /// What a database wrote that was opened and flushed a few times.
    fn real() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..3u8 {
            let engine = rocks::open(dir.path(), 0).unwrap();
            for number in 0..4u8 {
                let mut batch = Batch::default();
                batch.put(Family::Meta, vec![round, number].into(), vec![number].into());
                engine.write(batch).unwrap();
                engine.flush().unwrap();
            }
        }
        let manifest = current(&dir.path().join("state-00000001")).unwrap();
        (dir, manifest)
    }

    #[test]
    fn what_rocksdb_writes_is_whole() {
        let (_dir, manifest) = real();
        let bytes = fs::read(&manifest).unwrap();
        assert!(bytes.len() > 500, "{}", bytes.len());
        assert_eq!(whole_len(&bytes), bytes.len());
        assert!(!cut_torn_tail(&manifest).unwrap());
    }

    #[test]
    fn what_is_before_a_broken_byte_stays() {
        let (_dir, manifest) = real();
        let bytes = fs::read(&manifest).unwrap();
        let mut ends = vec![0];
        while let Some(fragment) = Fragment::at(&bytes, ends[ends.len() - 1]) {
            ends.push(fragment.end);
        }
        for broken in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[broken] ^= 1;
            let before = ends.iter().rfind(|end| **end <= broken).unwrap();
            assert_eq!(whole_len(&torn), *before, "byte {broken}");
        }
        for len in 0..bytes.len() {
            let before = ends.iter().rfind(|end| **end <= len).unwrap();
            assert_eq!(whole_len(&bytes[..len]), *before, "{len} bytes");
        }
    }

    #[test]
    fn records_go_on_in_the_next_block() {
        let fragment = |kind: u8, payload: &[u8]| {
            let covered: Vec<u8> = [&[kind], payload].concat();
            let mut bytes = masked(crc32c::crc32c(&covered)).to_le_bytes().to_vec();
            bytes.extend((payload.len() as u16).to_le_bytes());
            bytes.extend(covered);
            bytes
        };
        // Three bytes are left in the first block: no header fits in there.
        let mut log = fragment(2, &vec![7; BLOCK_BYTES - HEADER_BYTES - 3]);
        log.extend([0; 3]);
        assert_eq!(whole_len(&log), 0);
        log.extend(fragment(4, b"end"));
        let end = log.len();
        assert_eq!(whole_len(&log), end);
        log.extend(fragment(2, b"not ended"));
        assert_eq!(whole_len(&log), end);
    }

    #[test]
    fn damage_is_no_torn_tail() {
        let (_dir, manifest) = real();
        let bytes = fs::read(&manifest).unwrap();
        for damaged in [
            [&[0xff], &bytes[1..]].concat(),
            [&bytes[..], &[0xff; LONGEST_TAIL + 1]].concat(),
        ] {
            fs::write(&manifest, &damaged).unwrap();
            assert!(!cut_torn_tail(&manifest).unwrap());
            assert_eq!(fs::read(&manifest).unwrap(), damaged);
        }
    }
}
