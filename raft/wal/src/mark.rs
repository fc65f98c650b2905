//! The mark: up to where the log is known to be durable, in a file of its own beside the segments.
//!
//! A log whose end was zeroed, or that was replaced by an older copy, looks like a log that ends earlier. The mark
//! is the second witness: it says "the log was durable up to here", and a log that ends before that is damaged.
//! Every mark that was ever written stays true, because a log never gets shorter in its files: a truncation is one
//! more frame. So the file holds the newest two, in blocks that are written in turn, and the further one counts.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::{
    files::{File, Files},
    frame::{le32, le64},
    segment::{self, damaged},
    state::LogId,
};

pub(crate) const NAME: &str = "mark";
/// The file in the making.
pub(crate) const NEW_NAME: &str = "mark.tmp";
/// Each copy has a block of its own, so that writing one cannot tear the other.
const BLOCK_BYTES: u64 = 4096;
const COPIES: usize = 2;
const COPY_BYTES: usize = 56;
const MAGIC: &[u8; 8] = b"BARQUEMK";
const VERSION: u32 = 1;

/// Everything before `offset` of segment `seq`, and all segments before that one, are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub seq: u64,
    pub offset: u64,
    /// The log's last entry there; only to be told to who must mend the log.
    pub last: Option<LogId>,
}

impl Mark {
    /// Whether it lies behind that place of the log.
    fn is_beyond(&self, seq: u64, offset: u64) -> bool {
        (self.seq, self.offset) > (seq, offset)
    }
}

/// The file with the marks.
pub(crate) struct MarkFile {
    path: PathBuf,
    file: Box<dyn File>,
    /// The further of the two copies, and which one it is.
    mark: Mark,
    copy: usize,
}

impl MarkFile {
    /// Reads the file, which must be there.
    pub(crate) fn open(dir: &Path, files: &dyn Files) -> io::Result<MarkFile> {
        let path = dir.join(NAME);
        let file = files.open(&path, false)?;
        let mut furthest: Option<(Mark, usize)> = None;
        for copy in 0..COPIES {
            let Some(mark) = read_copy(&path, file.as_ref(), copy)? else {
                continue;
            };
            if furthest.is_none_or(|(known, _)| mark.is_beyond(known.seq, known.offset)) {
                furthest = Some((mark, copy));
            }
        }
        // A power cut tears one of them at most.
        let Some((mark, copy)) = furthest else {
            return Err(damaged(&path, 0, "neither copy of the mark is readable"));
        };
        Ok(MarkFile {
            path,
            file,
            mark,
            copy,
        })
    }

    /// Makes the file, both copies the same: one that gets lost later is replaced by the other.
    pub(crate) fn create(dir: &Path, files: &dyn Files, mark: Mark) -> io::Result<MarkFile> {
        let (path, new) = (dir.join(NAME), dir.join(NEW_NAME));
        let file = files.open(&new, true)?;
        let mut bytes = vec![0; BLOCK_BYTES as usize * COPIES];
        for block in bytes.chunks_mut(BLOCK_BYTES as usize) {
            block[..COPY_BYTES].copy_from_slice(&encode(&mark));
        }
        file.write_all_at(&bytes, 0)
            .and_then(|()| file.sync())
            .map_err(|error| segment::at(&new, 0, error))?;
        files.rename(&new, &path)?;
        files.sync_dir(dir)?;
        Ok(MarkFile {
            path,
            file,
            mark,
            copy: 0,
        })
    }

    /// The log ends at `offset` of `segment` (`None`: there is no segment): before the mark that is damage.
    pub(crate) fn check(&self, end: Option<(&segment::Segment, u64)>, dir: &Path) -> io::Result<()> {
        let marked = segment::path(dir, self.mark.seq);
        let last = match self.mark.last {
            Some((term, index)) => format!("entry {index} of term {term}"),
            None => "no entry".into(),
        };
        let known = format!(
            "{} says that the log was durable up to {} at offset {} ({last})",
            self.path.display(),
            marked.display(),
            self.mark.offset
        );
        match end {
            None => Err(damaged(
                &marked,
                0,
                &format!("the segment is missing, but {known}"),
            )),
            Some((segment, offset)) if self.mark.is_beyond(segment.seq, offset) => Err(damaged(
                &segment.path,
                offset,
                &format!("the log ends there, but {known}"),
            )),
            Some(_) => Ok(()),
        }
    }

    /// Makes durable that the log is, up to `mark`; nothing is written when that is known already.
    pub(crate) fn raise(&mut self, mark: Mark) -> io::Result<()> {
        if !mark.is_beyond(self.mark.seq, self.mark.offset) {
            return Ok(());
        }
        let copy = (self.copy + 1) % COPIES;
        let at = copy as u64 * BLOCK_BYTES;
        self.file
            .write_all_at(&encode(&mark), at)
            .and_then(|()| self.file.sync())
            .map_err(|error| segment::at(&self.path, at, error))?;
        (self.mark, self.copy) = (mark, copy);
        Ok(())
    }
}

fn encode(mark: &Mark) -> [u8; COPY_BYTES] {
    let (term, index) = mark.last.unwrap_or_default();
    let numbers = [mark.seq, mark.offset, u64::from(mark.last.is_some()), term, index];
    let mut bytes = [0; COPY_BYTES];
    bytes[0..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    for (place, number) in bytes[16..].chunks_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    let crc = crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn crc(bytes: &[u8; COPY_BYTES]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[0..12]), &bytes[16..])
}

/// `None`: it is torn, damaged or not there.
fn read_copy(path: &Path, file: &dyn File, copy: usize) -> io::Result<Option<Mark>> {
    let at = copy as u64 * BLOCK_BYTES;
    let mut bytes = [0; COPY_BYTES];
    match segment::read_exact(file, &mut bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read.map_err(|error| segment::at(path, at, error))?,
    }
    if &bytes[0..8] != MAGIC || le32(&bytes, 12) != crc(&bytes) {
        return Ok(None);
    }
    if le32(&bytes, 8) != VERSION {
        let text = format!("format version {} is not known to this program", le32(&bytes, 8));
        return Err(damaged(path, at + 8, &text));
    }
    Ok(Some(Mark {
        seq: le64(&bytes, 16),
        offset: le64(&bytes, 24),
        last: (le64(&bytes, 32) == 1).then_some((le64(&bytes, 40), le64(&bytes, 48))),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::CutFiles;

    const DIR: &str = "/wal";

    fn mark(seq: u64, offset: u64) -> Mark {
        Mark {
            seq,
            offset,
            last: Some((3, 12)),
        }
    }

    fn created() -> CutFiles {
        let files = CutFiles::new(1);
        files.create_dir_all(Path::new(DIR)).unwrap();
        MarkFile::create(Path::new(DIR), &files, mark(1, 4096)).unwrap();
        files
    }

    fn open(files: &CutFiles) -> io::Result<MarkFile> {
        MarkFile::open(Path::new(DIR), files)
    }

    #[test]
    fn golden_copy() {
        let expected: Vec<u8> = [
            &b"BARQUEMK"[..],
            &[1, 0, 0, 0],
            &GOLDEN_CRC,
            &[0x1a, 0, 0, 0, 0, 0, 0, 0],
            &[0, 0x20, 0, 0, 0, 0, 0, 0],
            &[1, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            &[12, 0, 0, 0, 0, 0, 0, 0],
        ]
        .concat();
        assert_eq!(encode(&mark(0x1a, 0x2000)).to_vec(), expected);
    }

    const GOLDEN_CRC: [u8; 4] = [192, 146, 100, 76];

    #[test]
    fn either_copy_may_be_lost() {
        let files = created();
        let path = Path::new(DIR).join(NAME);
        open(&files).unwrap().raise(mark(1, 8192)).unwrap();
        for (damaged, left) in [(4096 + 20, mark(1, 4096)), (20, mark(1, 8192))] {
            files.flip(&path, damaged).unwrap();
            assert_eq!(open(&files).unwrap().mark, left);
            files.flip(&path, damaged).unwrap();
        }
        assert_eq!(open(&files).unwrap().mark, mark(1, 8192));
        files.flip(&path, 0).unwrap();
        files.flip(&path, 4096).unwrap();
        let error = open(&files).err().expect("both are lost").to_string();
        assert!(error.contains("/wal/mark at offset 0"), "{error}");
    }

    /// Whatever a power cut leaves of the copy that was being written.
    #[test]
    fn a_mark_that_tears_leaves_the_one_before() {
        for seed in 0..40 {
            let files = CutFiles::new(seed);
            files.create_dir_all(Path::new(DIR)).unwrap();
            let mut marks = MarkFile::create(Path::new(DIR), &files, mark(1, 4096)).unwrap();
            marks.raise(mark(1, 5000)).unwrap();
            files.cut_in_sync(1);
            marks.raise(mark(2, 6000)).unwrap_err();
            files.restore();
            let found = open(&files).unwrap().mark;
            assert!([mark(1, 5000), mark(2, 6000)].contains(&found), "{found:?}");
        }
    }

    #[test]
    fn a_mark_never_goes_back() {
        let files = created();
        let mut marks = open(&files).unwrap();
        marks.raise(mark(2, 5000)).unwrap();
        let operations = files.operations();
        marks.raise(mark(1, 9000)).unwrap();
        marks.raise(mark(2, 5000)).unwrap();
        assert_eq!(files.operations(), operations, "nothing is written");
        assert_eq!(open(&files).unwrap().mark, mark(2, 5000));
    }
}
