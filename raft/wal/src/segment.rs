//! Segments: the files of the log, each of a fixed length, with one header block and then frames.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    MAX_VOTE_BYTES,
    files::{File, Files},
    frame::{self, le32, le64},
};

/// The header has a block of its own: it is not rewritten when frames are.
pub(crate) const HEADER_BYTES: u64 = 4096;
const MAGIC: &[u8; 8] = b"BARQUEWL";
const VERSION: u32 = 1;
/// Fixed part of a start frame's payload.
pub(crate) const START_FIXED: usize = 48;
/// However large the segments are.
const MAX_PAYLOAD: u64 = 64 << 20;

/// In the header of a segment whose file holds zeroes where no frame was written, and no older log's frames.
const ZEROED: u64 = 1;

/// An open segment.
pub(crate) struct Segment {
    pub seq: u64,
    pub len: u64,
    /// The file was made for this segment: what is behind its frames and no zero was written by this log.
    pub zeroed: bool,
    pub path: PathBuf,
    pub file: Box<dyn File>,
}

/// Whether a segment may have this length. Offsets in it fit 32 bits, and so does what recovery holds in memory.
pub(crate) fn is_valid_len(bytes: u64) -> bool {
    bytes.is_multiple_of(HEADER_BYTES) && (16 << 10..=1 << 30).contains(&bytes)
}

/// The largest payload that fits an empty segment beside its start and seal frames.
pub(crate) fn max_payload(segment_bytes: u64) -> usize {
    let start = frame::frame_len(START_FIXED + MAX_VOTE_BYTES);
    let room = segment_bytes.saturating_sub(HEADER_BYTES + start + 2 * frame::frame_len(0));
    (room / frame::ALIGN * frame::ALIGN).min(MAX_PAYLOAD) as usize
}

pub(crate) fn path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.wal"))
}

pub(crate) fn spare_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("{seq:016x}.spare"))
}

/// The sequence number in a segment's name, or in a spare's; `None`: no log names a file like this.
pub(crate) fn parse_name(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension)?.strip_suffix('.')?;
    let seq = u64::from_str_radix(digits, 16).ok()?;
    let is_own = format!("{seq:016x}") == digits && (1..u64::MAX).contains(&seq);
    is_own.then_some(seq)
}

/// The block at the start of a segment.
pub(crate) fn header_block(seq: u64, len: u64, zeroed: bool) -> Vec<u8> {
    let mut block = vec![0u8; HEADER_BYTES as usize];
    block[0..8].copy_from_slice(MAGIC);
    block[8..12].copy_from_slice(&VERSION.to_le_bytes());
    block[16..24].copy_from_slice(&seq.to_le_bytes());
    block[24..32].copy_from_slice(&len.to_le_bytes());
    let crc = header_crc(&block);
    block[12..16].copy_from_slice(&crc.to_le_bytes());
    block[32..40].copy_from_slice(&if zeroed { ZEROED } else { 0 }.to_le_bytes());
    block
}

fn header_crc(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[0..12]), &block[16..32])
}

impl Segment {
    /// Opens an existing segment and checks its header against its name.
    pub(crate) fn open(dir: &Path, files: &dyn Files, seq: u64) -> io::Result<Segment> {
        let path = path(dir, seq);
        let file = files.open(&path, false)?;
        let mut block = vec![0u8; 40];
        read_exact(file.as_ref(), &mut block, 0).map_err(|error| damaged(&path, 0, &error.to_string()))?;
        if &block[0..8] != MAGIC || le32(&block, 12) != header_crc(&block) {
            return Err(damaged(&path, 0, "the segment's header is damaged"));
        }
        if le32(&block, 8) != VERSION {
            let text = format!("format version {} is not known to this program", le32(&block, 8));
            return Err(damaged(&path, 8, &text));
        }
        if le64(&block, 16) != seq {
            return Err(damaged(
                &path,
                16,
                &format!("the header says segment {:016x}", le64(&block, 16)),
            ));
        }
        let len = le64(&block, 24);
        if !is_valid_len(len) {
            return Err(damaged(&path, 24, &format!("no segment is {len} bytes long")));
        }
        if file.len()? < len {
            return Err(damaged(
                &path,
                file.len()?,
                &format!("the file is shorter than its {len} bytes"),
            ));
        }
        Ok(Segment {
            seq,
            len,
            zeroed: le64(&block, 32) == ZEROED,
            path,
            file,
        })
    }

    pub(crate) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file
            .write_all_at(bytes, offset)
            .map_err(|error| at(&self.path, offset, error))
    }

    /// Of what was written at this offset.
    pub(crate) fn sync(&self, offset: u64) -> io::Result<()> {
        self.file.sync().map_err(|error| at(&self.path, offset, error))
    }

    pub(crate) fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0u8; self.len as usize];
        read_exact(self.file.as_ref(), &mut bytes, 0).map_err(|error| at(&self.path, 0, error))?;
        Ok(bytes)
    }
}

pub(crate) fn read_exact(file: &dyn File, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buf.is_empty() {
        match file.read_at(buf, offset) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file ends early",
                ));
            }
            Ok(read) => {
                buf = &mut buf[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An error that no restart mends: one line with file and offset.
pub(crate) fn damaged(path: &Path, offset: u64, what: &str) -> io::Error {
    let text = format!(
        "raft log is damaged: {} at offset {offset}: {what}",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Adds file and offset to an error of the operating system.
pub(crate) fn at(path: &Path, offset: u64, error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{} at offset {offset}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_header() {
        let block = header_block(0x1a, 64 << 20, true);
        assert_eq!(block.len(), 4096);
        let expected: Vec<u8> = [
            &b"BARQUEWL"[..],
            &[1, 0, 0, 0],
            &GOLDEN_CRC,
            &[0x1a, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0, 0, 4, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(&block[..40], expected);
        assert!(block[40..].iter().all(|byte| *byte == 0));
        // One that was a spare, and every one of an earlier program.
        let used = header_block(0x1a, 64 << 20, false);
        assert_eq!(&used[..32], &expected[..32]);
        assert!(used[32..].iter().all(|byte| *byte == 0));
    }

    const GOLDEN_CRC: [u8; 4] = [225, 200, 90, 84];

    #[test]
    fn names() {
        assert_eq!(path(Path::new("/w"), 26), Path::new("/w/000000000000001a.wal"));
        assert_eq!(parse_name("000000000000001a.wal", "wal"), Some(26));
        assert_eq!(parse_name("000000000000001a.spare", "spare"), Some(26));
        for other in [
            "1a.wal",
            "000000000000001a.spare",
            "000000000000001g.wal",
            "000000000000001A.wal",
            "+00000000000001a.wal",
            "0000000000000000.wal",
            "ffffffffffffffff.wal",
            "000000000000001awal",
            "new.tmp",
        ] {
            assert_eq!(parse_name(other, "wal"), None, "{other}");
        }
    }

    #[test]
    fn the_largest_payload_fits_an_empty_segment() {
        let max = max_payload(16 << 10);
        let frames =
            frame::frame_len(START_FIXED + MAX_VOTE_BYTES) + frame::frame_len(max) + frame::frame_len(0);
        assert!(HEADER_BYTES + frames <= 16 << 10);
    }
}
