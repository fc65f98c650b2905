//! A reader of protobuf's wire format: field by field, borrowing from the input.
//!
//! `Reader` yields `(field number, Wire)`. Malformed input is a `WireError`; it never panics, never copies, and
//! never follows nesting by itself (that is bounded by `decode`).

use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    #[error("the input ends in the middle of a field")]
    Truncated,
    #[error("a varint does not fit in 64 bits")]
    VarintTooLong,
    #[error("a field number is out of range")]
    FieldNumber,
    #[error("wire type {0} is not supported")]
    WireType(u8),
}

/// A field's value as the wire has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
}

pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// At most ten bytes, of which the last may carry one bit only.
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            if shift == 63 && byte > 1 {
                return Err(WireError::VarintTooLong);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(WireError::VarintTooLong)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let length = usize::try_from(self.varint()?).map_err(|_| WireError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), WireError> {
        const MAX_FIELD_NUMBER: u64 = (1 << 29) - 1;
        let tag = self.varint()?;
        let number = tag >> 3;
        if number == 0 || number > MAX_FIELD_NUMBER {
            return Err(WireError::FieldNumber);
        }
        let value = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.array()?),
            2 => Wire::Bytes(self.bytes()?),
            5 => Wire::Fixed32(self.array()?),
            other => return Err(WireError::WireType(other as u8)),
        };
        Ok((number as u32, value))
    }
}

/// Ends at the first error.
impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Wire<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Wire<'_>)>, WireError> {
        Reader::new(bytes).collect()
    }

    #[test]
    fn fields_of_every_wire_type() {
        assert_eq!(read(b""), Ok(vec![]));
        assert_eq!(read(b"\x08\x96\x01"), Ok(vec![(1, Wire::Varint(150))]));
        let all = b"\x12\x02hi\x19\x01\0\0\0\0\0\0\x02\x25\x03\0\0\x04";
        let expect = vec![
            (2, Wire::Bytes(b"hi")),
            (3, Wire::Fixed64([1, 0, 0, 0, 0, 0, 0, 2])),
            (4, Wire::Fixed32([3, 0, 0, 4])),
        ];
        assert_eq!(read(all), Ok(expect));
        let minus_one = b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(read(minus_one), Ok(vec![(1, Wire::Varint(u64::MAX))]));
    }

    #[test]
    fn malformed_input_is_an_error() {
        assert_eq!(read(b"\x08"), Err(WireError::Truncated));
        assert_eq!(read(b"\x08\x80"), Err(WireError::Truncated));
        assert_eq!(read(b"\x12\x05abc"), Err(WireError::Truncated));
        assert_eq!(
            read(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            Err(WireError::Truncated)
        );
        assert_eq!(read(b"\x19\0\0"), Err(WireError::Truncated));
        assert_eq!(read(b"\x25\0"), Err(WireError::Truncated));
        assert_eq!(
            read(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"),
            Err(WireError::VarintTooLong)
        );
        assert_eq!(read(b"\x00\x01"), Err(WireError::FieldNumber));
        assert_eq!(read(b"\x0b"), Err(WireError::WireType(3)));
        assert_eq!(read(b"\x0f"), Err(WireError::WireType(7)));
    }
}
