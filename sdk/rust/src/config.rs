/// A reader of the manifest's `config`: one flat JSON object whose values are
/// texts, whole numbers, `true` or `false`, and lists of these. It reads
/// forwards and stops for good at the first thing that is not as expected, so
/// a judge need not check each step:
///
/// ```ignore
/// fn configure(&mut self, config: &mut Config<'_>) {
///     while let Some(key) = config.key() {
///         match key {
///             b"most" => self.most = config.number(1, 100),
///             b"words" => {
///                 config.list();
///                 while config.item() {
///                     let n = config.text(&mut word);
///                     ...
///                 }
///             }
///             _ => config.refuse(), // an unknown key
///         }
///     }
/// }
/// ```
///
/// The operator is told 1 + the byte of the config where it stopped.
pub struct Config<'a> {
    json: &'a [u8],
    at: usize,
    open: bool, // nothing read yet of the object or list
    failed: bool,
}

impl<'a> Config<'a> {
    /// A reader before the first key.
    pub fn new(json: &'a [u8]) -> Config<'a> {
        let mut c = Config { json, at: 0, open: true, failed: false };
        c.take(b'{');
        c
    }

    /// Refuses the configuration because of what was read last.
    pub fn refuse(&mut self) {
        self.failed = true;
    }

    /// Whether something was refused or malformed.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// The next key, as it is written; `None` after the last.
    pub fn key(&mut self) -> Option<&'a [u8]> {
        if !self.more(b'}') || !self.take(b'"') {
            return None;
        }
        let rest = &self.json[self.at..];
        let len = rest.iter().position(|c| *c == b'"' || *c == b'\\').unwrap_or(rest.len());
        self.at += len;
        if !self.take(b'"') || !self.take(b':') {
            return None;
        }
        Some(&rest[..len])
    }

    /// Begins a list, whose values follow.
    pub fn list(&mut self) {
        self.open = self.take(b'[');
    }

    /// Whether the list has another value, which is to be read next.
    pub fn item(&mut self) -> bool {
        !self.failed && self.more(b']')
    }

    /// `true` or `false`.
    pub fn bool(&mut self) -> bool {
        self.peek();
        for (word, value) in [("true", true), ("false", false)] {
            if !self.failed && self.json[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return value;
            }
        }
        self.failed = true;
        false
    }

    /// A whole number from `least` to `most`; `least` if there is none.
    pub fn number(&mut self, least: i32, most: i32) -> i32 {
        let negative = self.peek() == b'-';
        let rest = &self.json[self.at + usize::from(negative)..];
        let len = rest.iter().position(|c| !c.is_ascii_digit()).unwrap_or(rest.len());
        let value = rest[..len].iter().take(11).fold(0i64, |v, c| v * 10 + i64::from(c - b'0'));
        let value = if negative { -value } else { value };
        let whole = !matches!(rest.get(len), Some(b'.' | b'e' | b'E'));
        let plain = len > 0 && len <= 10 && (len == 1 || rest[0] != b'0');
        if self.failed || !whole || !plain || value < i64::from(least) || value > i64::from(most) {
            self.failed = true;
            return least;
        }
        self.at += usize::from(negative) + len;
        value as i32
    }

    /// Which of the words a text is; any other is refused.
    pub fn choice(&mut self, words: &[&str]) -> usize {
        let mut word = [0; 32];
        let first = self.at;
        let n = self.text(&mut word);
        match words.iter().position(|w| w.as_bytes() == &word[..n]) {
            Some(i) if !self.failed => i,
            _ => {
                self.failed = true;
                self.at = first;
                0
            }
        }
    }

    /// Writes a text into `into` and returns its length in bytes. A longer one
    /// is refused.
    pub fn text(&mut self, into: &mut [u8]) -> usize {
        let first = self.at;
        if !self.take(b'"') {
            return 0;
        }
        let mut n = 0;
        while self.json.get(self.at) != Some(&b'"') {
            let mut utf8 = [0; 4];
            let one = match self.char() {
                Some(c) => c.encode_utf8(&mut utf8).as_bytes(),
                None => &[],
            };
            if one.is_empty() || n + one.len() > into.len() {
                self.failed = true;
                self.at = first; // the value is at fault, not one of its bytes
                return 0;
            }
            into[n..n + one.len()].copy_from_slice(one);
            n += one.len();
        }
        self.at += 1;
        n
    }

    /// One character of a text, decoded; `None` where it is malformed.
    fn char(&mut self) -> Option<char> {
        let rest = &self.json[self.at..];
        match rest.first()? {
            0..=0x1f => None,
            b'\\' => {
                self.at += 2;
                Some(match rest.get(1)? {
                    c @ (b'"' | b'\\' | b'/') => char::from(*c),
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'u' => return self.unicode(),
                    _ => return None,
                })
            }
            c => {
                let len = match c {
                    0..=0x7f => 1,
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    _ => 4,
                };
                let c = core::str::from_utf8(rest.get(..len)?).ok()?.chars().next();
                self.at += len;
                c
            }
        }
    }

    /// The rest of \uXXXX, and its second half where there is one.
    fn unicode(&mut self) -> Option<char> {
        let high = self.hex4()?;
        if high & 0xfc00 != 0xd800 {
            return char::from_u32(high);
        }
        if self.json.get(self.at..self.at + 2)? != b"\\u" {
            return None;
        }
        self.at += 2;
        let low = self.hex4()?;
        if low & 0xfc00 != 0xdc00 {
            return None;
        }
        char::from_u32(0x1_0000 + ((high & 0x3ff) << 10 | low & 0x3ff))
    }

    fn hex4(&mut self) -> Option<u32> {
        let digits = self.json.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |v, d| Some(v << 4 | char::from(*d).to_digit(16)?))
    }

    /// The next byte that is no white space, 0 at the end.
    fn peek(&mut self) -> u8 {
        while matches!(self.json.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
        match self.json.get(self.at) {
            Some(c) if !self.failed => *c,
            _ => 0,
        }
    }

    fn take(&mut self, want: u8) -> bool {
        if self.peek() != want {
            self.failed = true;
            return false;
        }
        self.at += 1;
        true
    }

    /// Whether a value follows in the object or list that ends with `close`.
    fn more(&mut self, close: u8) -> bool {
        let open = core::mem::replace(&mut self.open, false);
        if self.peek() == close {
            self.at += 1;
            return false;
        }
        if open {
            return !self.failed;
        }
        self.take(b',')
    }

    /// 0 if all was read and nothing refused, else 1 + the byte where it
    /// stopped.
    pub(crate) fn finish(&mut self) -> u32 {
        self.peek();
        if self.failed || self.at < self.json.len() {
            return 1 + self.at as u32;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_where_it_is_wrong() {
        for (json, want) in [
            ("", 1),
            ("[]", 1),
            ("{}", 0),
            (" {  } ", 0),
            ("{} x", 4),
            ("{\"n\":5}", 0),
            ("{\"n\":5,}", 8),
            ("{\"n\":5 \"n\":5}", 8),
            ("{\"n\":50}", 6),
            ("{\"n\":05}", 6),
            ("{\"n\":-}", 6),
            ("{\"n\"", 5),
            ("{\"m\":5}", 6),
            ("{\"n\":5", 7),
        ] {
            let mut c = Config::new(json.as_bytes());
            while let Some(key) = c.key() {
                match key {
                    b"n" => assert!((0..=9).contains(&c.number(0, 9))),
                    _ => c.refuse(),
                }
            }
            assert_eq!(c.finish(), want, "{}", json);
        }
    }

    #[test]
    fn every_cut_is_refused() {
        let json = "{\"t\":\"a\\u00e9\\uD83D\\ude00é\",\"l\":[true,false],\"w\":\"two\"}";
        for n in 0..=json.len() {
            let mut c = Config::new(&json.as_bytes()[..n]);
            let mut text = [0; 20];
            let mut len = 0;
            while let Some(key) = c.key() {
                match key {
                    b"t" => len = c.text(&mut text),
                    b"w" => assert!(c.choice(&["one", "two"]) == 1 || c.failed()),
                    _ => {
                        c.list();
                        while c.item() {
                            c.bool();
                        }
                    }
                }
            }
            assert_eq!(c.finish() == 0, n == json.len());
            if n == json.len() {
                assert_eq!(std::str::from_utf8(&text[..len]), Ok("aé😀é"));
            }
        }
    }
}
