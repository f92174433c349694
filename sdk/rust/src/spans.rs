use crate::MAX_SPANS;

/// The two texts that spans may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Field {
    /// [`Message::text`](crate::Message::text)
    Text = 0,
    /// [`Message::normalized`](crate::Message::normalized); the host masks the
    /// characters of the text that they came from.
    Normalized = 1,
}

/// A run of bytes to mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The text it lies in.
    pub field: Field,
    /// Its first byte.
    pub start: u32,
    /// The byte behind its last.
    pub end: u32,
}

/// What to mask. Spans may be added in any order and overlap; of more than
/// [`MAX_SPANS`], neighbours are joined: rather a few characters too many
/// masked than one too few.
pub struct Spans {
    n: usize,
    at: [Span; MAX_SPANS],
}

impl Spans {
    /// Nothing yet.
    pub const fn new() -> Spans {
        Spans { n: 0, at: [Span { field: Field::Text, start: 0, end: 0 }; MAX_SPANS] }
    }

    /// Adds the bytes from `start` up to `end`, both on UTF-8 boundaries.
    #[inline(never)]
    pub fn mask(&mut self, field: Field, start: usize, end: usize) {
        if start >= end {
            return;
        }
        if self.n == MAX_SPANS {
            self.tidy(false);
        }
        if self.n == MAX_SPANS {
            self.tidy(true);
        }
        self.at[self.n] = Span { field, start: start as u32, end: end as u32 };
        self.n += 1;
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.n = 0;
    }

    /// Whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// The spans as the host gets them: sorted, without overlap.
    pub fn tidied(&mut self) -> &[Span] {
        self.tidy(false);
        &self.at[..self.n]
    }

    /// Sorts and joins those that touch; with `squeeze`, every second one is
    /// joined to its neighbour as well.
    #[inline(never)]
    fn tidy(&mut self, squeeze: bool) {
        let spans = &mut self.at[..self.n];
        sort(spans);
        let mut out = 0;
        for i in 0..spans.len() {
            let s = spans[i];
            if out > 0 {
                let p = &mut spans[out - 1];
                if p.field == s.field && (s.start <= p.end || squeeze && i % 2 == 1) {
                    p.end = p.end.max(s.end);
                    continue;
                }
            }
            spans[out] = s;
            out += 1;
        }
        self.n = out;
    }
}

/// Sorts by field and start. Spans mostly come in order, and the sort of the
/// standard library would be half of a small plugin.
fn sort(spans: &mut [Span]) {
    let key = |s: &Span| u64::from(s.field as u32) << 32 | u64::from(s.start);
    if spans.windows(2).all(|w| key(&w[0]) <= key(&w[1])) {
        return;
    }
    for gap in [121, 40, 13, 4, 1] {
        for i in gap..spans.len() {
            let s = spans[i];
            let mut at = i;
            while at >= gap && key(&s) < key(&spans[at - gap]) {
                spans[at] = spans[at - gap];
                at -= gap;
            }
            spans[at] = s;
        }
    }
}

impl Default for Spans {
    fn default() -> Spans {
        Spans::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins() {
        let mut s = Spans::new();
        for (start, end) in [(5, 9), (1, 3), (2, 5), (20, 20), (12, 14)] {
            s.mask(Field::Text, start, end);
        }
        let got: Vec<_> = s.tidied().iter().map(|s| (s.start, s.end)).collect();
        assert_eq!(got, [(1, 9), (12, 14)]);
    }

    #[test]
    fn loses_none() {
        for n in [256, 257, 600, 5000] {
            let mut s = Spans::new();
            for i in (0..n).rev() {
                s.mask(Field::Normalized, 3 * i, 3 * i + 1);
            }
            let spans = s.tidied();
            assert!(spans.len() <= MAX_SPANS);
            for i in 0..n as u32 {
                assert!(spans.iter().any(|s| s.start <= 3 * i && 3 * i < s.end), "{} of {}", i, n);
            }
            assert_eq!(spans[spans.len() - 1].end, 3 * n as u32 - 2);
        }
    }
}
