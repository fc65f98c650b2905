//! Frames: the records of the stream as bytes.
//!
//! A frame's two checksums cover, besides its own bytes, the sequence number of its segment and its offset in
//! it: what a recycled file held before, and bytes of a payload that look like a frame, are never taken for one.

/// Everything before the payload, in bytes.
pub(crate) const HEADER_LEN: usize = 32;
/// Frames start at multiples of this.
pub(crate) const ALIGN: u64 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum FrameType {
    /// The first of a segment: all that must be known when the segments before it are gone.
    Start = 1,
    Entry = 2,
    Vote = 3,
    Committed = 4,
    Truncate = 5,
    Purge = 6,
    Bound = 7,
    /// The last of a segment that was left for the next one.
    Seal = 8,
}

impl FrameType {
    pub(crate) fn of(byte: u8) -> Option<FrameType> {
        use FrameType::*;
        [Start, Entry, Vote, Committed, Truncate, Purge, Bound, Seal]
            .into_iter()
            .find(|ty| *ty as u8 == byte)
    }
}

/// A record before it is placed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub ty: FrameType,
    pub kind: u8,
    pub term: u64,
    pub index: u64,
    pub payload: &'a [u8],
}

/// Where a frame lies: its segment, its offset there, and where the batch began that it was written with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub seq: u64,
    pub offset: u64,
    pub batch: u64,
}

/// A header whose own check is right; the payload may still be torn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub len: u32,
    pub crc: u32,
    pub ty: u8,
    pub kind: u8,
    /// Everything before this offset was durable before the frame was written.
    pub batch: u32,
    pub term: u64,
    pub index: u64,
}

/// Bytes that a frame with this payload takes, padding included.
pub(crate) fn frame_len(payload: usize) -> u64 {
    ((HEADER_LEN + payload) as u64).next_multiple_of(ALIGN)
}

pub(crate) fn encode(out: &mut Vec<u8>, place: Place, frame: &Frame<'_>) {
    let mut header = [0u8; HEADER_LEN];
    header[0..4].copy_from_slice(&(frame.payload.len() as u32).to_le_bytes());
    header[8] = frame.ty as u8;
    header[9] = frame.kind;
    header[12..16].copy_from_slice(&(place.batch as u32).to_le_bytes());
    header[16..24].copy_from_slice(&frame.term.to_le_bytes());
    header[24..32].copy_from_slice(&frame.index.to_le_bytes());
    let check = header_check(&header, place.seq, place.offset);
    header[10..12].copy_from_slice(&check.to_le_bytes());
    let crc = crc32c::crc32c_append(header_crc(&header, place.seq, place.offset), frame.payload);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(frame.payload);
    let padding = frame_len(frame.payload.len()) as usize - HEADER_LEN - frame.payload.len();
    out.resize(out.len() + padding, 0);
}

/// The header at the start of `bytes`, when its check is right.
pub(crate) fn header(bytes: &[u8], seq: u64, offset: u64) -> Option<Header> {
    let header: &[u8; HEADER_LEN] = bytes.get(..HEADER_LEN)?.try_into().ok()?;
    // Most of what is tried is zeroes: turned away before anything is computed.
    if header[8] == 0 || u64::from(le32(header, 12)) > offset {
        return None;
    }
    if u16::from_le_bytes([header[10], header[11]]) != header_check(header, seq, offset) {
        return None;
    }
    Some(Header {
        len: le32(header, 0),
        crc: le32(header, 4),
        ty: header[8],
        kind: header[9],
        batch: le32(header, 12),
        term: le64(header, 16),
        index: le64(header, 24),
    })
}

/// The frame at the start of `bytes`, when it is whole.
pub(crate) fn decode(bytes: &[u8], seq: u64, offset: u64) -> Option<(Header, &[u8])> {
    let header = header(bytes, seq, offset)?;
    let payload = bytes[HEADER_LEN..].get(..header.len as usize)?;
    let head: &[u8; HEADER_LEN] = bytes[..HEADER_LEN].try_into().ok()?;
    let crc = crc32c::crc32c_append(header_crc(head, seq, offset), payload);
    (crc == header.crc).then_some((header, payload))
}

fn header_check(header: &[u8; HEADER_LEN], seq: u64, offset: u64) -> u16 {
    let crc = crc32c::crc32c_append(placed_crc(seq, offset), &header[0..4]);
    let crc = crc32c::crc32c_append(crc, &header[8..10]);
    crc32c::crc32c_append(crc, &header[12..]) as u16
}

fn header_crc(header: &[u8; HEADER_LEN], seq: u64, offset: u64) -> u32 {
    let crc = crc32c::crc32c_append(placed_crc(seq, offset), &header[0..4]);
    crc32c::crc32c_append(crc, &header[8..])
}

fn placed_crc(seq: u64, offset: u64) -> u32 {
    let mut place = [0u8; 16];
    place[..8].copy_from_slice(&seq.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    crc32c::crc32c(&place)
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payload: &[u8]) -> Frame<'_> {
        Frame {
            ty: FrameType::Entry,
            kind: 2,
            term: 7,
            index: 0x0102_0304_0506_0708,
            payload,
        }
    }

    const PLACE: Place = Place {
        seq: 3,
        offset: 4160,
        batch: 4096,
    };

    fn encoded(frame: &Frame<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, PLACE, frame);
        bytes
    }

    #[test]
    fn golden_bytes() {
        let bytes = encoded(&entry(b"barque"));
        let expected: Vec<u8> = [
            &[6, 0, 0, 0][..],         // len
            &GOLDEN_CRC,               // crc32c
            &[2, 2],                   // type, kind
            &GOLDEN_CHECK,             // header check
            &[0, 0x10, 0, 0],          // batch
            &[7, 0, 0, 0, 0, 0, 0, 0], // term
            &[8, 7, 6, 5, 4, 3, 2, 1], // index
            b"barque\0\0",             // payload, padding
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(bytes.len() as u64, frame_len(6));
    }

    const GOLDEN_CRC: [u8; 4] = [64, 153, 170, 35];
    const GOLDEN_CHECK: [u8; 2] = [190, 225];

    #[test]
    fn a_frame_is_read_only_where_it_was_written() {
        let bytes = encoded(&entry(b"barque"));
        let (header, payload) = decode(&bytes, 3, 4160).unwrap();
        assert_eq!(
            (header.term, header.index, header.kind, header.batch),
            (7, 0x0102_0304_0506_0708, 2, 4096)
        );
        assert_eq!(payload, b"barque");
        assert_eq!(decode(&bytes, 4, 4160), None);
        assert_eq!(decode(&bytes, 3, 4168), None);
    }

    #[test]
    fn every_bit_is_covered() {
        let bytes = encoded(&entry(b"barque"));
        for bit in 0..(HEADER_LEN + 6) * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&flipped, 3, 4160), None, "bit {bit}");
        }
        for len in 0..HEADER_LEN + 6 {
            assert_eq!(decode(&bytes[..len], 3, 4160), None, "cut to {len}");
        }
    }
}
