//! links judges the links of a message by the domain they lead to: a list of
//! domains that are not welcome, one of those that are, and names that pretend
//! to be another. It is a Parley plugin; README.md beside it says what it
//! catches and how to configure it.

#![no_std]

mod chars;
mod list;
mod name;
mod punycode;

use chars::{decode, ends_link, has_twin, looks_like, part, script, Part, Script};
use list::{List, ALLOW, DENY, LOOK, MAX_LABELS, PROTECT};
use name::Name;
use parley::{Config, Field, Judge, Message, Reply, Spans, Verdict};

// Codes of the rules, which people see as "rule_CODE".
const DENIED: u16 = 1;
const NOT_ALLOWED: u16 = 2;
const PRETENDS: u16 = 3;
const MIXED: u16 = 4;

const REASONS: [&str; 5] = [
    "",
    "Links to that site are not welcome here.",
    "Only links to sites on this room's list are welcome here.",
    "That link leads somewhere else than its name pretends.",
    "That link's name mixes letters of several alphabets, or is hidden in punycode.",
];

/// Endings of names that are a link without "https://" or "www." before them.
/// Those that are words or endings of files as well ("it", "me", "rs", "md",
/// "py", "sh") are not among them.
const BARE: &[&[u8]] = &[
    b"app", b"at", b"be", b"biz", b"br", b"ca", b"ch", b"club", b"cn", b"co", b"com", b"cz", b"de", b"dev", b"dk", b"edu", b"es", b"eu", b"fr",
    b"gg", b"gov", b"gr", b"hu", b"ie", b"info", b"io", b"jp", b"kr", b"ly", b"mil", b"mx", b"net", b"nl", b"online", b"org", b"pl", b"pt", b"ro",
    b"ru", b"se", b"shop", b"site", b"tk", b"top", b"tr", b"tv", b"ua", b"uk", b"xyz",
];

const MODES: [Verdict; 4] = [Verdict::Redact, Verdict::Deny, Verdict::Hold, Verdict::Flag];

/// The plugin. It begins as all zeros, so that its tables take no room in the
/// module.
struct Links {
    mode: usize,         // of MODES
    refuse_others: bool, // links that no list names are not welcome
    allow_mixed: bool,
    reason: [u8; parley::MAX_REASON],
    reason_len: usize,
    list: List,
    name: Name,
    look: Look,
    spans: Spans,
}

/// Bytes at the front of a name that may hold a protected one: people read no
/// further.
const MAX_FRONT: usize = 64;

/// What a name looks like at a glance.
struct Look {
    bytes: [u8; 512],
    len: usize,
}

impl Look {
    #[inline(never)]
    fn of(&mut self, name: &[u8]) -> &[u8] {
        self.len = 0;
        let mut i = 0;
        while i < name.len() {
            let plain = LOOKS[usize::from(name[i])];
            if plain != 0 && self.len < self.bytes.len() {
                self.bytes[self.len] = plain;
                self.len += 1;
                i += 1;
            } else {
                i += self.step(&name[i..]);
            }
        }
        &self.bytes[..self.len]
    }

    /// Adds the character that name begins with, and returns its length.
    #[inline(never)]
    fn step(&mut self, name: &[u8]) -> usize {
        let (c, size) = decode(name);
        let last = if self.len > 0 { self.bytes[self.len - 1] } else { 0 };
        match (looks_like(c), last) {
            (0, _) => {}
            (b'n', b'r') => self.bytes[self.len - 1] = b'm',
            (b'v', b'v') => self.bytes[self.len - 1] = b'w',
            (b, _) => {
                self.bytes[self.len] = b;
                self.len += 1;
            }
        }
        size
    }
}

/// looks_like of the bytes for which it is all there is to it.
static LOOKS: [u8; 256] = {
    let mut t = [0; 256];
    let mut c = 0x21;
    while c < 0x7f {
        t[c] = match c as u8 {
            b'n' | b'v' => 0,
            b'1' | b'i' | b'l' => b'l',
            b'0' => b'o',
            b => b,
        };
        c += 1;
    }
    t
};

impl Links {
    /// The rule that a name breaks, 0 if none. link says that it is one for
    /// certain, and not two words with a dot between them.
    #[inline(never)]
    fn rule(&mut self, link: bool) -> u16 {
        let ends = self.list.ends(self.name.bytes());
        if ends.denied > ends.allowed {
            return DENIED;
        }
        if ends.allowed > 0 {
            return 0;
        }
        if ends.protected == 0 && self.list.has(LOOK) && self.pretends() {
            return PRETENDS;
        }
        if !self.allow_mixed && (link || self.name.coded) && self.is_mixed() {
            return MIXED;
        }
        if self.refuse_others && link {
            return NOT_ALLOWED;
        }
        0
    }

    /// Whether a name that is not protected looks like one that is, or has one
    /// in front of its own end: "paypal.com.example".
    fn pretends(&mut self) -> bool {
        let look = self.look.of(self.name.bytes());
        if self.list.ends(look).look > 0 {
            return true;
        }
        // Names of two and three labels before each of the first dots.
        let mut labels = [0usize; 3]; // where the last ones begin
        for i in 0..look.len().min(MAX_FRONT) {
            if look[i] == b'.' {
                if (self.list.kind(&look[labels[0]..i]) | self.list.kind(&look[labels[1]..i])) & LOOK != 0 {
                    return true;
                }
                labels = [labels[1], labels[2], i + 1];
            }
        }
        false
    }

    /// Whether a label has letters of two alphabets, or nothing but letters
    /// that pass for Latin ones under an ending in Latin letters.
    #[inline(never)]
    fn is_mixed(&self) -> bool {
        let name = &self.name;
        if name.broken {
            return true;
        }
        let latin_end = name.label(name.labels() - 1).is_ascii();
        for l in 0..name.labels() {
            let label = name.label(l);
            if label.is_ascii() {
                continue;
            }
            let (mut i, mut seen, mut twins) = (0, Script::Any, true);
            while i < label.len() {
                let (c, size) = decode(&label[i..]);
                i += size;
                let s = script(c);
                if s == Script::Any {
                    continue;
                }
                if seen != Script::Any && seen != s {
                    return true;
                }
                seen = s;
                twins &= has_twin(c);
            }
            if seen != Script::Any && twins && latin_end {
                return true;
            }
        }
        false
    }

    /// Whether a name without "https://" before it is a link.
    #[inline(never)]
    fn is_bare_link(&self) -> bool {
        let n = self.name.labels();
        n > 1 && (self.name.label(0) == b"www" || BARE.binary_search(&self.name.label(n - 1)).is_ok())
    }

    /// Looks at the name that begins at `at`, which may be a link's scheme, and
    /// at the link around it. Returns the link's first and last place and the
    /// rule it breaks; 0 as the rule for none.
    #[inline(never)]
    fn link(&mut self, text: &[u8], at: usize) -> (usize, u16) {
        let end = self.name.read(text, at);
        let scheme = self.name.labels() == 1 && text[end..].starts_with(b"://");
        let mut rule = 0;
        let mut stop = end;
        if scheme {
            let host = after_user(text, end + 3);
            if host == text.len() || !matches!(part(decode(&text[host..]).0), Part::Letter(_)) {
                // https://[::1]/ and the like have no name
                if self.refuse_others && host < text.len() && text[host] == b'[' {
                    rule = NOT_ALLOWED;
                }
                stop = host;
            } else {
                stop = self.name.read(text, host);
                rule = self.rule(true);
            }
        } else if self.name.labels() > 1 && !is_address(text, at, end) {
            rule = self.rule(self.is_bare_link());
        } else {
            return (end, 0);
        }
        let (stop, denied) = self.rest(text, stop);
        (stop, if rule == 0 && denied { DENIED } else { rule })
    }

    #[inline(never)]
    fn is_denied(&self) -> bool {
        let ends = self.list.ends(self.name.bytes());
        ends.denied > ends.allowed
    }

    /// Passes over what follows the name of a link: port, path, query. Reports
    /// whether a denied name is in it, as in "example.com/?go=bad.example".
    #[inline(never)]
    fn rest(&mut self, text: &[u8], at: usize) -> (usize, bool) {
        let mut i = at;
        if text.get(i) == Some(&b':') {
            let digits = text[i + 1..].iter().take(5).take_while(|c| c.is_ascii_digit()).count();
            i += if digits > 0 { 1 + digits } else { 0 };
        }
        if !matches!(text.get(i), Some(b'/' | b'?' | b'#' | b'\\')) {
            return (i, false);
        }
        let (mut end, mut denied, mut open) = (i, false, 0);
        while i < text.len() {
            let (c, size) = decode(&text[i..]);
            if ends_link(c) {
                break;
            }
            if c == u32::from(b'%') && i + 3 <= text.len() && text[i + 1..i + 3].iter().all(|h| h.is_ascii_hexdigit()) {
                i += 3; // %2F
                end = i;
                continue;
            }
            if let Part::Letter(_) = part(c) {
                i = self.name.read(text, i);
                end = i;
                denied |= self.name.labels() > 1 && self.is_denied();
                continue;
            }
            i += size;
            // what ends the sentence, or the brackets around it, is not the link's
            match char::from_u32(c) {
                Some('(') => open += 1,
                Some(')') if open > 0 => open -= 1,
                Some('!' | '\'' | ')' | '*' | ',' | '.' | ':' | ';' | '?' | ']' | '}') => continue,
                _ => {}
            }
            end = i;
        }
        (end, denied)
    }
}

/// What a byte is to the search for links: 0 nothing, 1 part of a word, 2 what
/// makes a word worth a closer look: a dot, a colon, anything beyond ASCII.
static WORTH: [u8; 256] = {
    let mut t = [2; 256];
    let mut c = 0;
    while c < 128 {
        let b = c as u8;
        t[c] = match b {
            b'.' | b':' => 2,
            b'-' | b'_' => 1,
            _ => b.is_ascii_alphanumeric() as u8,
        };
        c += 1;
    }
    t
};

/// Where the next word begins that may be a link or a link's scheme; the end of
/// the text if none does. Most words are passed over here.
#[inline(never)]
fn next_link(text: &[u8], at: usize) -> usize {
    let (mut word, mut i) = (at, at);
    while i < text.len() {
        match WORTH[usize::from(text[i])] {
            0 => word = i + 1,
            1 => {}
            _ => match first_letter(text, word, i) {
                Ok(start) => return start,
                Err(next) => {
                    word = next;
                    i = next;
                    continue;
                }
            },
        }
        i += 1;
    }
    text.len()
}

/// The first character of a name from word on, not after i; or, if there is
/// none, where to go on.
#[inline(never)]
fn first_letter(text: &[u8], word: usize, i: usize) -> Result<usize, usize> {
    if word < i {
        return Ok(word);
    }
    let (c, size) = decode(&text[i..]);
    match part(c) {
        Part::Letter(_) => Ok(i),
        _ => Err(i + size),
    }
}

/// The place behind "user:password@", where there is that.
#[inline(never)]
fn after_user(text: &[u8], at: usize) -> usize {
    let mut host = at;
    let mut i = at;
    while i < text.len() {
        let (c, size) = decode(&text[i..]);
        if ends_link(c) || matches!(text[i], b'/' | b'?' | b'#' | b'\\') {
            break;
        }
        i += size;
        if c == u32::from(b'@') {
            host = i;
        }
    }
    host
}

/// Whether the name from at to end is part of an e-mail address or a handle.
fn is_address(text: &[u8], at: usize, end: usize) -> bool {
    at > 0 && text[at - 1] == b'@' || text.get(end) == Some(&b'@')
}

impl Judge for Links {
    fn configure(&mut self, config: &mut Config<'_>) {
        while let Some(key) = config.key() {
            match key {
                b"mode" => self.mode = config.choice(&["redact", "deny", "hold", "flag"]),
                b"others" => self.refuse_others = config.choice(&["allow", "refuse"]) == 1,
                b"mixed" => self.allow_mixed = !config.bool(),
                b"reason" => self.reason_len = config.text(&mut self.reason),
                b"deny" => self.names(config, DENY),
                b"allow" => self.names(config, ALLOW),
                b"protect" => self.names(config, PROTECT),
                _ => config.refuse(),
            }
        }
    }

    fn decide<'a>(&'a mut self, message: &Message<'a>) -> Reply<'a> {
        let text = message.text;
        let (mut i, mut code) = (0, 0);
        self.spans.clear();
        self.name.decoded = 0;
        loop {
            i = next_link(text, i);
            if i == text.len() {
                break;
            }
            let (end, rule) = self.link(text, i);
            if rule != 0 {
                self.spans.mask(Field::Text, i, end);
                code = if code == 0 { rule } else { code };
            }
            i = end;
        }
        if code == 0 {
            return Reply::allow();
        }
        let own: &[u8] = REASONS[usize::from(code)].as_bytes();
        let reason = if self.reason_len > 0 { &self.reason[..self.reason_len] } else { own };
        Reply::new(MODES[self.mode], code, reason, &mut self.spans)
    }
}

impl Links {
    /// Reads a list of names: each with at least one dot, and nothing else.
    fn names(&mut self, config: &mut Config<'_>, kind: u8) {
        let mut written = [0; 253];
        config.list();
        while config.item() {
            let n = config.text(&mut written);
            if config.failed() {
                return;
            }
            self.name.decoded = 0;
            let letter = n > 0 && matches!(part(decode(&written).0), Part::Letter(_));
            if !letter || self.name.read(&written[..n], 0) != n || self.name.labels() < 2 || self.name.labels() > MAX_LABELS || self.name.broken {
                return config.refuse();
            }
            let mut room = self.list.add(kind, self.name.bytes());
            if kind == PROTECT {
                room &= self.list.add(LOOK, self.look.of(self.name.bytes()));
            }
            if !room {
                return config.refuse();
            }
        }
    }
}

parley::plugin!(
    Links = Links {
        mode: 0,
        refuse_others: false,
        allow_mixed: false,
        reason: [0; parley::MAX_REASON],
        reason_len: 0,
        list: List::new(),
        name: Name::new(),
        look: Look { bytes: [0; 512], len: 0 },
        spans: Spans::new(),
    },
    input: 32 * 1024
);
