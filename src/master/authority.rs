//! Mending one header of old etcd clients on plain connections, before HTTP/2 is spoken.
//!
//! `etcdctl` 3.4 asks a single endpoint (as `endpoint status` does) with the whole URL as its `:authority`:
//! `http://127.0.0.1:2379`. Go's server lets that pass; the h2 crate resets the stream as malformed, and has no
//! setting for it. [`Mended`] reads along on a connection until its first request: when that has such an
//! authority, this and later ones are replaced by a well-formed one, which nothing looks at; otherwise the bytes
//! pass untouched from there on. The header block is walked, never decoded: the replacement takes the place of a
//! literal, so both ends' tables stay in step.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;
/// Without a word of ours, no frame may be larger than this.
const FRAME_BYTES_MAX: usize = 16 * 1024;
const READ_BYTES: usize = 4 * 1024;
const HEADERS: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Index of `:authority` in HPACK's static table.
const AUTHORITY: u64 = 1;
/// Not Huffman-coded: its length in seven bits, then the bytes.
const REPLACEMENT: &[u8] = b"\x09localhost";

/// A connection whose incoming bytes are mended.
pub struct Mended<S> {
    stream: S,
    state: State,
    /// Read from the stream, not looked at yet.
    input: BytesMut,
    /// Looked at, not handed on yet.
    output: BytesMut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preface,
    /// At a frame's first byte; whether an authority has been mended before.
    Frame {
        mended: bool,
    },
    /// So many bytes of a frame are none of ours.
    Within {
        bytes: usize,
        mended: bool,
    },
    /// Nothing to mend on this connection.
    Through,
}

impl<S> Mended<S> {
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            state: State::Preface,
            input: BytesMut::new(),
            output: BytesMut::new(),
        }
    }

    /// Moves what can be judged from input to output.
    fn advance(&mut self) {
        loop {
            self.state = match self.state {
                State::Preface
                    if !PREFACE.starts_with(&self.input[..self.input.len().min(PREFACE.len())]) =>
                {
                    State::Through
                }
                State::Preface if self.input.len() < PREFACE.len() => return,
                State::Preface => State::Within {
                    bytes: PREFACE.len(),
                    mended: false,
                },
                State::Frame { mended } => match self.frame(mended) {
                    Some(next) => next,
                    None => return,
                },
                State::Within { bytes: 0, mended } => State::Frame { mended },
                State::Within { .. } if self.input.is_empty() => return,
                State::Within { bytes, mended } => {
                    let passed = bytes.min(self.input.len());
                    self.output.extend_from_slice(&self.input[..passed]);
                    self.input.advance(passed);
                    State::Within {
                        bytes: bytes - passed,
                        mended,
                    }
                }
                State::Through => {
                    self.output.extend_from_slice(&self.input);
                    self.input.clear();
                    return;
                }
            };
        }
    }

    /// The frame that the input begins with; `None` when more of it is needed.
    fn frame(&mut self, mended: bool) -> Option<State> {
        let header = self.input.get(..FRAME_HEADER_BYTES)?;
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let (kind, flags) = (header[3], header[4]);
        if kind != HEADERS || flags & PADDED != 0 || length > FRAME_BYTES_MAX {
            return Some(State::Within {
                bytes: FRAME_HEADER_BYTES + length,
                mended,
            });
        }
        if self.input.len() < FRAME_HEADER_BYTES + length {
            return None;
        }
        let frame = self.input.split_to(FRAME_HEADER_BYTES + length);
        let block_at = FRAME_HEADER_BYTES + if flags & PRIORITY != 0 { 5 } else { 0 };
        let Some(literal) = frame.get(block_at..).and_then(url_as_authority) else {
            self.output.extend_from_slice(&frame);
            return Some(if mended {
                State::Frame { mended }
            } else {
                State::Through
            });
        };
        let (before, after) = (
            &frame[..block_at + literal.start],
            &frame[block_at + literal.end..],
        );
        let length = before.len() + REPLACEMENT.len() + after.len() - FRAME_HEADER_BYTES;
        // Shorter than the URL it stands for, so it fits in three bytes as the original did.
        self.output.put_uint(length as u64, 3);
        self.output.extend_from_slice(&before[3..]);
        self.output.extend_from_slice(REPLACEMENT);
        self.output.extend_from_slice(after);
        Some(State::Frame { mended: true })
    }
}

/// Where in a header block the value of an `:authority` that begins with `http://` lies, with its length.
fn url_as_authority(block: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut at = 0;
    while let Some(first) = block.get(at).copied() {
        let (is_indexed, prefix_bits) = match first {
            0x80.. => (true, 7),
            0x40..0x80 => (false, 6),
            0x20..0x40 => (true, 5),
            _ => (false, 4),
        };
        let name = integer(block, &mut at, prefix_bits)?;
        if is_indexed {
            continue;
        }
        if name == 0 {
            string(block, &mut at)?;
        }
        let start = at;
        let value = string(block, &mut at)?;
        if name == AUTHORITY {
            return is_url(value).then_some(start..at);
        }
    }
    None
}

struct Literal<'a> {
    is_huffman: bool,
    bytes: &'a [u8],
}

fn is_url(value: Literal<'_>) -> bool {
    match value.is_huffman {
        false => value.bytes.starts_with(b"http://"),
        // "http://" in Huffman's code is 41 bits: these five bytes and a zero.
        true => value
            .bytes
            .strip_prefix(&[0x9d, 0x29, 0xae, 0xe3, 0x0c])
            .is_some_and(|rest| rest.first().is_some_and(|byte| byte & 0x80 == 0)),
    }
}

fn string<'a>(block: &'a [u8], at: &mut usize) -> Option<Literal<'a>> {
    let is_huffman = block.get(*at)? & 0x80 != 0;
    let length = usize::try_from(integer(block, at, 7)?).ok()?;
    let bytes = block.get(*at..at.checked_add(length)?)?;
    *at += length;
    Some(Literal { is_huffman, bytes })
}

/// An integer whose first `prefix_bits` bits lie in the byte at `at`.
fn integer(block: &[u8], at: &mut usize, prefix_bits: u32) -> Option<u64> {
    let mask = (1u64 << prefix_bits) - 1;
    let mut value = u64::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = *block.get(*at)?;
        *at += 1;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if !this.output.is_empty() {
                let handed = this.output.len().min(buf.remaining());
                buf.put_slice(&this.output[..handed]);
                this.output.advance(handed);
                return Poll::Ready(Ok(()));
            }
            if this.state == State::Through {
                return Pin::new(&mut this.stream).poll_read(cx, buf);
            }
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // The end: what was held back is handed on as it is, and then the end itself.
                this.state = State::Through;
            }
            this.input.extend_from_slice(read.filled());
            this.advance();
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0x4, 0, 0, 0, 1], payload].concat()
    }

    /// What comes out when `sent` goes in, in pieces of each size.
    async fn passed(sent: &[u8]) -> Vec<u8> {
        let mut whole = None;
        for piece in [1, 7, 1000] {
            let (mut client, server) = tokio::io::duplex(64);
            let mut mended = Mended::new(server);
            let mut out = Vec::new();
            let write = async {
                for bytes in sent.chunks(piece) {
                    client.write_all(bytes).await.unwrap();
                }
                drop(client);
            };
            let (read, ()) = tokio::join!(mended.read_to_end(&mut out), write);
            read.unwrap();
            assert_eq!(*whole.get_or_insert_with(|| out.clone()), out);
        }
        whole.unwrap()
    }

    /// `:method: POST`, `:authority:` as given, `:scheme: http`.
    fn request(authority: &[u8]) -> Vec<u8> {
        frame(HEADERS, &[b"\x83\x41", authority, b"\x86"].concat())
    }

    #[tokio::test]
    async fn a_url_becomes_a_host_in_every_request() {
        let data = frame(0, b"http://");
        let huffman = b"\x8b\x9d\x29\xae\xe3\x0c\x04\x00\x00\x00\x00\xff";
        let sent = [PREFACE, &request(b"\x0chttp://a:123"), &data, &request(huffman)].concat();
        let wanted = [PREFACE, &request(REPLACEMENT), &data, &request(REPLACEMENT)].concat();
        assert_eq!(passed(&sent).await, wanted);
    }

    #[tokio::test]
    async fn everything_else_passes_untouched() {
        let fine = [PREFACE, &request(b"\x05a:123"), &request(b"\x0chttp://a:123")].concat();
        let cut_short = &[PREFACE, &request(b"\x0chttp://a:123")].concat()[..PREFACE.len() + 15];
        let broken = [PREFACE, &frame(HEADERS, b"\x41\xff\xff\xff\xff\xff\xff")].concat();
        for sent in [
            &fine[..],
            cut_short,
            &broken,
            b"GET / HTTP/1.1\r\n\r\n",
            b"PRI",
            b"",
        ] {
            assert_eq!(passed(sent).await, sent);
        }
    }
}
