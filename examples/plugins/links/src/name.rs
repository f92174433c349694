//! Domain names as they stand in a text.

use crate::chars::{ascii, decode, part, Part};
use crate::punycode;

/// Characters of a name, with its dots.
const MAX_WRITTEN: usize = 253;
const MAX_BYTES: usize = 512;
const MAX_LABELS: usize = 127;
/// Bytes of punycode in one message; no message of people has nearly as many,
/// and they are dear.
const MAX_DECODED: usize = 1000;

/// One name: its labels in lower case, punycode decoded, as UTF-8 with dots
/// between them.
pub struct Name {
    bytes: [u8; MAX_BYTES],
    len: usize,
    starts: [u16; MAX_LABELS],
    labels: usize,
    written: usize, // characters read
    dot: bool,      // one has been read and nothing after it
    /// The place in the text: its first byte, and the one behind its last.
    pub start: usize,
    pub end: usize,
    /// A label was written in punycode.
    pub coded: bool,
    /// Bytes of punycode decoded since this was 0.
    pub decoded: usize,
    /// Punycode that is none or too much, or a name longer than names are.
    pub broken: bool,
}

impl Name {
    pub const fn new() -> Name {
        Name { bytes: [0; MAX_BYTES], len: 0, starts: [0; MAX_LABELS], labels: 0, written: 0, dot: false, start: 0, end: 0, decoded: 0, coded: false, broken: false }
    }

    /// Reads the name at a place of a text where its first character is, and
    /// returns where it ends. Each character is read once.
    #[inline(never)]
    pub fn read(&mut self, text: &[u8], at: usize) -> usize {
        self.len = 0;
        self.written = 0;
        self.start = at;
        self.end = at;
        self.coded = false;
        self.broken = false;
        self.starts[0] = 0;
        self.labels = 1;
        let mut i = at;
        self.dot = false;
        while i < text.len() {
            let plain = ascii(text[i]);
            if plain != 0 && !self.dot && self.written < MAX_WRITTEN && self.len < MAX_BYTES {
                self.bytes[self.len] = plain;
                self.len += 1;
                self.written += 1;
                i += 1;
                self.end = i;
                continue;
            }
            let next = self.step(text, i);
            if next == i {
                break;
            }
            i = next;
        }
        self.close_label();
        self.end
    }

    /// Reads the character at i in full and returns where the next begins; i if
    /// it is no part of the name.
    #[inline(never)]
    fn step(&mut self, text: &[u8], i: usize) -> usize {
        let (c, size) = decode(&text[i..]);
        match part(c) {
            Part::Letter(c) => {
                if self.dot {
                    self.close_label();
                    self.open_label();
                    self.dot = false;
                }
                self.push(c);
                self.end = i + size;
            }
            Part::Dot if !self.dot => self.dot = true,
            Part::Ignored => {}
            _ => return i,
        }
        i + size
    }

    #[inline(never)]
    fn push(&mut self, c: u32) {
        self.written += 1;
        if self.written > MAX_WRITTEN {
            self.broken = true;
            return;
        }
        self.put(c);
    }

    #[inline]
    fn put(&mut self, c: u32) {
        if c < 0x80 && self.len < MAX_BYTES {
            self.bytes[self.len] = c as u8;
            self.len += 1;
            return;
        }
        self.put_long(c);
    }

    #[inline(never)]
    fn put_long(&mut self, c: u32) {
        let mut utf8 = [0; 4];
        let b = char::from_u32(c).unwrap_or('?').encode_utf8(&mut utf8).as_bytes();
        if self.len + b.len() > MAX_BYTES {
            self.broken = true;
            return;
        }
        self.bytes[self.len..self.len + b.len()].copy_from_slice(b);
        self.len += b.len();
    }

    #[inline(never)]
    fn open_label(&mut self) {
        self.push(u32::from(b'.'));
        if self.labels == MAX_LABELS {
            self.broken = true;
            return;
        }
        self.starts[self.labels] = self.len as u16;
        self.labels += 1;
    }

    #[inline]
    fn close_label(&mut self) {
        let start = usize::from(self.starts[self.labels - 1]);
        if self.len >= start + 4 && self.bytes[start] == b'x' && self.bytes[start + 2] == b'-' {
            self.decode_label(start);
        }
    }

    /// Decodes the label that begins at start, if it is punycode.
    #[inline(never)]
    fn decode_label(&mut self, start: usize) {
        if self.broken || !self.bytes[start..self.len].starts_with(b"xn--") {
            return;
        }
        self.coded = true;
        let mut label = [0; 64];
        let n = self.len - start - 4;
        self.decoded += n;
        if n > 59 || self.decoded > MAX_DECODED {
            self.broken = true;
            return;
        }
        label[..n].copy_from_slice(&self.bytes[start + 4..self.len]);
        self.len = start;
        let mut good = true;
        let decoded = punycode::decode(&label[..n], &mut |c| match part(c) {
            Part::Letter(c) => self.put(c),
            // a letter of a script that is not told apart here
            Part::Other if c >= 0x80 => self.put(c),
            _ => good = false,
        });
        self.broken |= !decoded || !good;
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub fn labels(&self) -> usize {
        self.labels
    }

    /// Where label i begins.
    pub fn label_start(&self, i: usize) -> usize {
        usize::from(self.starts[i])
    }

    /// Where label i ends, before the dot.
    pub fn label_end(&self, i: usize) -> usize {
        if i + 1 < self.labels {
            self.label_start(i + 1) - 1
        } else {
            self.len
        }
    }

    pub fn label(&self, i: usize) -> &[u8] {
        &self.bytes[self.label_start(i)..self.label_end(i)]
    }
}
