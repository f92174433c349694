//! What a character of a message is to a domain name.

// The host charges a loop's whole body for each of its rounds, so what ASCII
// does not need is kept out of line.

/// The code point that text begins with, and how many bytes it has. The host
/// sends valid UTF-8; of anything else each byte is a character of its own.
#[inline]
pub fn decode(text: &[u8]) -> (u32, usize) {
    if text[0] < 0x80 {
        return (u32::from(text[0]), 1);
    }
    decode_long(text)
}

#[inline(never)]
fn decode_long(text: &[u8]) -> (u32, usize) {
    let at = |i: usize| text.get(i).map_or(0, |b| u32::from(b & 0x3f));
    match text[0] {
        b @ 0xc2..=0xdf if text.len() > 1 => (u32::from(b & 0x1f) << 6 | at(1), 2),
        b @ 0xe0..=0xef if text.len() > 2 => (u32::from(b & 0x0f) << 12 | at(1) << 6 | at(2), 3),
        b @ 0xf0..=0xf4 if text.len() > 3 => (u32::from(b & 0x07) << 18 | at(1) << 12 | at(2) << 6 | at(3), 4),
        b => (u32::from(b), 1),
    }
}

/// What a browser makes of a character in a host name.
#[derive(Clone, Copy, PartialEq)]
pub enum Part {
    /// A character of a label, in lower case.
    Letter(u32),
    Dot,
    /// Nothing: it is dropped.
    Ignored,
    /// It is no part of a name.
    Other,
}

/// Maps as UTS #46 does for the scripts whose letters are told apart here:
/// full-width, circled and mathematical letters are the letters themselves.
#[inline]
pub fn part(c: u32) -> Part {
    match ASCII.get(c as usize) {
        Some(0) => Part::Other,
        Some(b'.') => Part::Dot,
        Some(l) => Part::Letter(u32::from(*l)),
        None => part_beyond(c),
    }
}

/// The letter, digit or sign of a label that a byte stands for, 0 for none.
#[inline]
pub fn ascii(b: u8) -> u8 {
    match ASCII.get(usize::from(b)) {
        Some(l) if *l != b'.' => *l,
        _ => 0,
    }
}

/// What an ASCII character is in a name, in lower case; 0 for no part of it.
static ASCII: [u8; 128] = {
    let mut t = [0; 128];
    let mut c = 0;
    while c < 128 {
        let b = c as u8;
        if b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.' {
            t[c] = b.to_ascii_lowercase();
        }
        c += 1;
    }
    t
};

#[inline(never)]
fn part_beyond(c: u32) -> Part {
    match c {
        0x2024 | 0x3002 | 0xff0e | 0xff61 => Part::Dot,
        0xad | 0x34f | 0x200b..=0x200d | 0x2060 | 0xfe00..=0xfe0f | 0xfeff => Part::Ignored,
        0xff01..=0xff5e => part(c - 0xfee0),
        0x24b6..=0x24cf => Part::Letter(c - 0x24b6 + 0x61),
        0x24d0..=0x24e9 => Part::Letter(c - 0x24d0 + 0x61),
        0x1d400..=0x1d6a3 => Part::Letter((c - 0x1d400) % 26 + 0x61),
        0x1d7ce..=0x1d7ff => Part::Letter((c - 0x1d7ce) % 10 + 0x30),
        0xd7 | 0xf7 => Part::Other,
        0xc0..=0x24f => Part::Letter(lower_latin(c)),
        0x250..=0x2af | 0x300..=0x36f | 0x1e00..=0x1eff => Part::Letter(lower_latin(c)),
        0x391..=0x3a9 | 0x410..=0x42f => Part::Letter(c + 32),
        0x400..=0x40f => Part::Letter(c + 80),
        0x460..=0x4bf | 0x4d0..=0x52f => Part::Letter(c | 1),
        0x4c0 => Part::Letter(0x4cf),
        0x370..=0x373 | 0x376..=0x37d | 0x37f..=0x3ff | 0x430..=0x481 | 0x48a..=0x4cf => Part::Letter(c),
        _ => Part::Other,
    }
}

#[inline(never)]
fn lower_latin(c: u32) -> u32 {
    match c {
        0xc0..=0xde => c + 32,
        0x139..=0x148 | 0x179..=0x17e => c + (c & 1),
        0x178 => 0xff,
        0x100..=0x177 | 0x1e00..=0x1e95 | 0x1ea0..=0x1eff => c | 1,
        _ => c,
    }
}

/// Whether a link ends before this character.
#[inline]
pub fn ends_link(c: u32) -> bool {
    matches!(c, 0..=0x20 | 0x22 | 0x3c | 0x3e | 0x60) || c > 0x7e && ends_link_beyond(c)
}

#[inline(never)]
fn ends_link_beyond(c: u32) -> bool {
    matches!(
        c,
        0x7f..=0xa0 | 0x1680 | 0x2000..=0x200a | 0x2028..=0x2029 | 0x202f | 0x205f | 0x3000..=0x3002 | 0xff08..=0xff0c
    )
}

/// The alphabets whose letters pass for those of another.
#[derive(Clone, Copy, PartialEq)]
pub enum Script {
    Latin,
    Greek,
    Cyrillic,
    /// Digits, hyphens, marks: they go with any.
    Any,
}

/// The alphabet of a character of a label.
#[inline(never)]
pub fn script(c: u32) -> Script {
    match c {
        0x61..=0x7a | 0xc0..=0x2af | 0x1e00..=0x1eff => Script::Latin,
        0x370..=0x3ff => Script::Greek,
        0x400..=0x52f => Script::Cyrillic,
        _ => Script::Any,
    }
}

/// The ASCII letter a Greek or Cyrillic one cannot be told from in small print,
/// 0 if there is none.
#[inline(never)]
fn twin(c: u32) -> u8 {
    match c {
        0x430 => b'a',
        0x441 => b'c',
        0x501 => b'd',
        0x435 => b'e',
        0x4bb => b'h',
        0x456 => b'i',
        0x458 => b'j',
        0x4cf => b'l',
        0x43e => b'o',
        0x440 => b'p',
        0x51b => b'q',
        0x455 => b's',
        0x475 => b'v',
        0x51d => b'w',
        0x445 => b'x',
        0x443 => b'y',
        0x43a => b'k',
        0x3bf => b'o',
        0x3bd => b'v',
        0x3c1 => b'p',
        0x3b1 => b'a',
        0x3ba => b'k',
        0x3b9 => b'i',
        0x3c5 => b'u',
        _ => 0,
    }
}

/// Whether a letter is one of those that pass for an ASCII letter.
pub fn has_twin(c: u32) -> bool {
    twin(c) != 0
}

/// The ASCII letter that somebody who reads in a hurry takes a character for; 0
/// for a mark, which is overlooked, and 128 or more where it is like none.
#[inline]
pub fn looks_like(c: u32) -> u8 {
    match c {
        0x31 | 0x69 | 0x6c => b'l', // 1, i and l
        0x30 => b'o',
        0x21..=0x7e => c as u8,
        _ => looks_like_beyond(c),
    }
}

#[inline(never)]
fn looks_like_beyond(c: u32) -> u8 {
    let like = match c {
        0xc0..=0x154 => LATIN[(c - 0xc0) as usize],
        0x155..=0x2ff => late_latin(c),
        0x300..=0x36f => return 0,
        0x370..=0x52f => match twin(c) {
            0 => at_a_glance(c),
            t => t,
        },
        0x1e00..=0x1eff => marked_latin(c),
        _ => 0,
    };
    match like {
        0 => 0x80 | c as u8,
        b'i' => b'l',
        b => b,
    }
}

/// The base letters of U+00C0 to U+0154.
const LATIN: &[u8; 149] = b"aaaaaaaceeeeiiiidnooooo0ouuuuybbaaaaaaaceeeeiiiidnooooo0ouuuuyby\
aaaaaaccccccccddddeeeeeeeeeegggggggghhhhiiiiiiiiiijjjjkkklllllll\
lllnnnnnnnnnoooooooor";

#[inline(never)]
fn late_latin(c: u32) -> u8 {
    match c {
        0x155..=0x159 => b'r',
        0x15a..=0x161 | 0x17f | 0x218..=0x219 => b's',
        0x162..=0x167 | 0x21a..=0x21b => b't',
        0x168..=0x173 => b'u',
        0x174..=0x175 => b'w',
        0x176..=0x178 => b'y',
        0x179..=0x17e => b'z',
        0x251 => b'a',
        0x261 => b'g',
        0x269 => b'i',
        0x28b => b'v',
        _ => 0,
    }
}

/// The letters of U+1E00 to U+1EFF below their marks, and up to where.
static MARKED: [(u8, u8); 43] = [
    (0x01, b'a'), (0x07, b'b'), (0x09, b'c'), (0x13, b'd'), (0x1d, b'e'), (0x1f, b'f'), (0x21, b'g'), (0x2b, b'h'), (0x2f, b'i'),
    (0x35, b'k'), (0x3d, b'l'), (0x43, b'm'), (0x4b, b'n'), (0x53, b'o'), (0x57, b'p'), (0x5f, b'r'), (0x69, b's'), (0x71, b't'),
    (0x7b, b'u'), (0x7f, b'v'), (0x89, b'w'), (0x8d, b'x'), (0x8f, b'y'), (0x95, b'z'), (0x96, b'h'), (0x97, b't'), (0x98, b'w'),
    (0x99, b'y'), (0x9a, b'a'), (0x9d, b's'), (0x9e, b's'), (0x9f, 0), (0xb7, b'a'), (0xc7, b'e'), (0xcb, b'i'), (0xe3, b'o'),
    (0xf1, b'u'), (0xf9, b'y'), (0xfb, b'l'), (0xfd, b'v'), (0xfe, b'y'), (0xff, b'y'), (0xff, 0),
];

#[inline(never)]
fn marked_latin(c: u32) -> u8 {
    MARKED.iter().find(|(end, _)| c - 0x1e00 <= u32::from(*end)).map_or(0, |(_, b)| *b)
}

/// Letters that pass for Latin ones at a glance, though not for long.
#[inline(never)]
fn at_a_glance(c: u32) -> u8 {
    match c {
        0x432 => b'b',
        0x433 => b'r',
        0x438 => b'u',
        0x43c => b'm',
        0x43d => b'h',
        0x43f => b'n',
        0x442 => b't',
        0x451 => b'e',
        0x457 => b'i',
        0x3b3 => b'y',
        0x3b5 => b'e',
        0x3b7 => b'n',
        0x3c4 => b't',
        0x3c7 => b'x',
        0x3c9 => b'w',
        _ => 0,
    }
}
